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
set(cxx_options -ffp-contract=off -fno-fast-math -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
                -Wnon-virtual-dtor -Wswitch)
# nvcc's own defaults beside -fmad keep subnormals, divisions and roots as IEEE has them; they are said all the same.
# What it generates for the host is not -Wpedantic. std::bit_cast on a device needs the constexpr flag.
set(cuda_options -fmad=false -ftz=false -prec-div=true -prec-sqrt=true --expt-relaxed-constexpr
                 -Xcompiler=-ffp-contract=off,-fno-fast-math,-Wall,-Wextra,-Wshadow,-Wswitch)
if(LLORCH_WERROR)
  list(APPEND cxx_options -Werror)
  list(APPEND cuda_options -Werror=all-warnings)
endif()
target_compile_options(llorch_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>"
                                              "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
if(LLORCH_SANITIZE)
  target_compile_options(llorch_flags INTERFACE -fsanitize=${LLORCH_SANITIZE} -fno-omit-frame-pointer
                                                -fno-sanitize-recover=all)
  if(LLORCH_SANITIZE MATCHES undefined)
    # The first two the address sanitizer meets by itself; of casts down a hierarchy there are none. regex_test.cpp: 4.7 s, 3.6 s.
    target_compile_options(llorch_flags INTERFACE -fno-sanitize=null,object-size,vptr)
  endif()
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
