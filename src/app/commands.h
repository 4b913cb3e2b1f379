// The subcommands of llorch, each in the file of its name.
#pragma once

#include "base/error.h"

namespace CLI {
class App;
}

namespace llorch {

// Bad input of the person who called: a flag, a model file. Exit code 2.
class InputError : public CodedError {
 public:
  explicit InputError(const std::string& message, ErrorCode code = ErrorCode::kInvalidInput)
      : CodedError(code, message) {}
};

void add_serve(CLI::App& app);
void add_run(CLI::App& app);
void add_inspect(CLI::App& app);
void add_plan(CLI::App& app);
void add_bench(CLI::App& app);
void add_story(CLI::App& app);
void add_inference(CLI::App& app);
void add_trace(CLI::App& app);
void add_diff(CLI::App& app);
void add_doctor(CLI::App& app);
void add_replay(CLI::App& app);
void add_load(CLI::App& app);  // http_load.cpp

}  // namespace llorch
