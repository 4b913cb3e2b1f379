// A bundle's request run again, and held against what was recorded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trace/bundle.h"

namespace llorch {

// Whether a run can fail like this again. A cancel or a deadline comes from outside.
bool is_of_the_run(const FailEvent& failure);

// What a program must be compiled with to replay the bundle.
CompileOptions replay_options(const Bundle& bundle);

// Runs prompt, sampling and seed through an engine of its own, alone, as far as the recording goes. Throws Error if the
// request does not fit the program: a token beyond the vocabulary, too many positions.
SequenceRecord replay(std::unique_ptr<Program> program, const Bundle& bundle, const std::vector<int32_t>& prompt,
                      const std::string& device);

// The first thing that did not go the same way.
struct ReplayDifference {
  enum class What : uint8_t {
    kLogits,   // of the row that gives generated token `index`
    kToken,    // sampled from the same logits
    kFailure,  // it failed in another way, on one side only, or at another place
  };
  What what = What::kLogits;
  uint32_t index = 0;           // of the generated token, from 0
  uint32_t position = 0;        // of the row whose logits give it
  std::string recorded, got;    // a hash, a token, or an end
  bool record_changed = false;  // what follows agrees again, which no run can do: not the run differs but the record
};

std::optional<ReplayDifference> first_difference(const Bundle& bundle, const SequenceRecord& got);

// The name of a ReplayDifference::What: "logits", "token", "failure".
std::string_view to_string(ReplayDifference::What what);

// One sentence: "reproduced: 50 tokens, the same logits bit for bit", or what differs first.
std::string verdict_text(const Bundle& bundle, const std::optional<ReplayDifference>& difference);

}  // namespace llorch
