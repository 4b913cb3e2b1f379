# Libraries from Debian (bookworm) or Ubuntu (22.04 or newer), and Homebrew on macOS. Reasons: docs/dependencies.md.
find_package(Threads REQUIRED)
find_package(fmt 8.1 REQUIRED)
find_package(spdlog 1.9 REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(Boost 1.74 REQUIRED)  # headers only: Asio, Beast
find_package(CURL 7.81 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.39)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc>=2.4)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8.0)
if(LLORCH_TESTS)
  find_package(GTest 1.11 REQUIRED)
endif()

# The CUDA backend: AUTO builds it where nvcc is found, ON needs it, OFF never looks.
set(LLORCH_CUDA OFF CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE LLORCH_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LLORCH_HAS_CUDA OFF)
if(LLORCH_CUDA)
  include(LlorchCuda)
endif()

option(LLORCH_METAL "Build the Metal backend" OFF)
if(LLORCH_METAL)
  message(FATAL_ERROR "The Metal backend is not built yet (docs/backends.md); use the preset cpu.")
endif()
