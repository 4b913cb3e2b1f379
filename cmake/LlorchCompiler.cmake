# Compilers that know enough of C++20.
if((CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 11)
   OR (CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14))
  message(FATAL_ERROR "llorch needs g++ 11 or clang 14, or newer; this is ${CMAKE_CXX_COMPILER_ID} "
                      "${CMAKE_CXX_COMPILER_VERSION} (${CMAKE_CXX_COMPILER})")
endif()

# Flags that every target of the project shares, as the interface target llorch_flags.
add_library(llorch_flags INTERFACE)
target_include_directories(llorch_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# One arithmetic (docs/numerics.md): the compiler may not fuse, reorder or flush.
target_compile_options(llorch_flags INTERFACE -ffp-contract=off -fno-fast-math -Wall -Wextra -Wpedantic -Wshadow
                                              -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Wswitch)
if(LLORCH_WERROR)
  target_compile_options(llorch_flags INTERFACE -Werror)
endif()
if(LLORCH_SANITIZE)
  target_compile_options(llorch_flags INTERFACE -fsanitize=${LLORCH_SANITIZE} -fno-omit-frame-pointer
                                                -fno-sanitize-recover=all)
  target_link_options(llorch_flags INTERFACE -fsanitize=${LLORCH_SANITIZE})
endif()
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# llorch_library(NAME sources... [LINK libraries...]): one library per room of the house.
function(llorch_library name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC llorch_flags ${ARG_LINK})
endfunction()
