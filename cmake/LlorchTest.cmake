# llorch_test(NAME sources... [LINK libraries...] [LABEL unit|conformance|golden|e2e] [PREFIX text]): one GoogleTest program; each of its
# cases is a ctest test with that label (default: the one in its name, or unit). PREFIX stands before their names where
# programs share their sources. The target llorch_<label>_tests builds the programs of a label.
include(GoogleTest)
foreach(label unit conformance golden e2e threads)
  add_custom_target(llorch_${label}_tests)
endforeach()

# What the thread sanitizer runs (preset tsan, docs/architecture.md): the programs that start threads. The label of
# their cases ends in -threads.
set(LLORCH_THREADED_TESTS llorch_bundle_test llorch_cpu_test llorch_engine_test llorch_log_test llorch_piece_queue_test
    llorch_server_test llorch_trace_test)

function(llorch_test name)
  if(NOT LLORCH_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "LABEL;PREFIX" "LINK" ${ARGN})
  if(NOT ARG_LABEL)
    string(REGEX MATCH "conformance|golden|e2e" ARG_LABEL ${name})
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_LABEL MATCHES "^(unit|conformance|golden|e2e)$")
    message(FATAL_ERROR "llorch_test(${name}): unknown label ${ARG_LABEL}; expected unit, conformance, golden or e2e")
  endif()
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE llorch_flags ${ARG_LINK} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE -O1)  # of -O3, GoogleTest's templates only make compiling a third longer
  target_compile_definitions(${name} PRIVATE LLORCH_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_dependencies(llorch_${ARG_LABEL}_tests ${name})
  if(name IN_LIST LLORCH_THREADED_TESTS)
    add_dependencies(llorch_threads_tests ${name})
    string(APPEND ARG_LABEL -threads)
  endif()
  set(serial OFF)
  if(ARG_LABEL STREQUAL e2e)
    set(serial ON)  # a worker with its threads, and a client, have the machine to themselves
  endif()
  gtest_discover_tests(${name} TEST_PREFIX "${ARG_PREFIX}" DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600 RUN_SERIAL ${serial} LABELS ${ARG_LABEL})
endfunction()
