# The target llorch_tidy: clang-tidy reads each source of the rooms whose object is newer than its last clean reading. It
# takes the flags from the compile commands and compiles nothing itself.
find_program(LLORCH_CLANG_TIDY clang-tidy-14)
if(NOT LLORCH_CLANG_TIDY)
  return()
endif()

# Adds the readings of the targets in a folder, and in those below, to `readings`.
function(llorch_read_folder folder)
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(left_out ${target} LLORCH_NO_TIDY)
    if(left_out OR target MATCHES "_tests?$|^llorch_cuda$")
      continue()
    endif()
    get_target_property(sources ${target} SOURCES)
    get_target_property(source_dir ${target} SOURCE_DIR)
    get_target_property(binary_dir ${target} BINARY_DIR)
    if(NOT sources)
      continue()
    endif()
    list(FILTER sources INCLUDE REGEX "^[a-z0-9_]+\\.cpp$")
    foreach(source IN LISTS sources)
      set(object ${binary_dir}/CMakeFiles/${target}.dir/${source}${CMAKE_CXX_OUTPUT_EXTENSION})
      # It counts, on its standard error, the warnings in other people's headers; what matters is printed if it fails.
      add_custom_command(
        OUTPUT ${object}.tidy
        COMMAND sh -c "\"$0\" --quiet -p \"$1\" \"$2\" 2>\"$3.log\" || { cat \"$3.log\" >&2; exit 1; }; touch \"$3\""
                ${LLORCH_CLANG_TIDY} ${CMAKE_BINARY_DIR} ${source_dir}/${source} ${object}.tidy
        DEPENDS ${object} ${ARGN}
        COMMENT "Reading ${source_dir}/${source}"
        VERBATIM)
      list(APPEND readings ${object}.tidy)
    endforeach()
  endforeach()
  get_property(folders DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
  foreach(below IN LISTS folders)
    llorch_read_folder(${below} ${ARGN})
  endforeach()
  set(readings ${readings} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE checks ${CMAKE_SOURCE_DIR}/src/.clang-tidy)
llorch_read_folder(${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/.clang-tidy ${checks})
add_custom_target(llorch_tidy DEPENDS ${readings})
