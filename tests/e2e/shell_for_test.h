// llorch as a user calls it, through a shell.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace llorch {

struct Result {
  int exit_code;
  std::string output;  // stdout and stderr
};

inline Result shell(const std::string& command) {
  FILE* pipe = ::popen(("{ " + command + " ; } 2>&1").c_str(), "r");
  Result out{-1, {}};
  char bytes[4096];
  for (size_t n = 0; (n = std::fread(bytes, 1, sizeof bytes, pipe)) > 0;) out.output.append(bytes, n);
  out.exit_code = WEXITSTATUS(::pclose(pipe));
  return out;
}

inline Result llorch(const std::string& arguments) { return shell(std::string(LLORCH_EXECUTABLE) + " " + arguments); }

}  // namespace llorch
