// The debugging recipe, run by itself: a backend does the same work in many ways, each is held against a reference, and
// what fails and what does not becomes one sentence.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"
#include "trace/cut.h"
#include "trace/diff_report.h"

namespace llorch {

// What a check looks at; decides what its failure means.
enum class CheckKind : uint8_t {
  kDevice,    // it is there and takes the model
  kModel,     // its weights, and what the reference makes of them, are finite
  kWeights,   // they lie on the device as in the file
  kVerbs,     // each step by itself, fed the reference's inputs
  kToken,     // a single token
  kPrefill,   // several tokens at once
  kFusion,    // as it is run, neighbours fused
  kDecode,    // row by row
  kChunks,    // a prefill in chunks, logits of the last row only
  kBorders,   // lengths around pages
  kScatter,   // scattered pages that others have used before
  kCompany,   // two sequences in a batch
  kLayers,    // the layers that the other checks leave out
  kSampling,  // tokens drawn from logits
  kEngine,    // a sequence through an engine
  kHistory,   // the same after others
};

// Where the subject first left the reference in one check: the first batch that differs, there the first step.
struct Finding {
  std::string step, verb;           // the address; empty if no step can be named
  std::vector<uint32_t> positions;  // of the rows of that step that differ, ascending
  uint32_t n_rows = 0;              // that were compared
  bool to_the_end = false;          // every row that was compared, from the first of these positions on, differs
  ElementAddress first;             // a: the subject's, b: the reference's
  std::string elements;  // which elements differ: "k head 1", "rows 16 to 31 of layers.0.attn_q.weight (q4_0)"
  std::string fused;     // the step whose fusion into this one does it
  std::string remark;    // what else was seen: an exception, a batch of the engine that is wrong
};

struct Check {
  CheckKind kind = CheckKind::kDevice;
  std::string name;  // "33 tokens"
  bool passed = false;
  double ms = 0.0;
  std::string sentence;            // what was compared, or what was found
  std::optional<Finding> finding;  // of a failed check
};

struct DoctorOptions {
  std::vector<int32_t> tokens = {};  // of the sequence that is watched; empty: made from the vocabulary
  uint32_t max_positions = 131;      // of that sequence, if tokens are not given: two pages of 64, three chunks
  // Multiply-adds of the reference; larger models are cut. 1.3 ns each with bf16 weights, 2.1 ns with q4_1 (EPYC).
  uint64_t max_work = 2'500'000'000;
  DType kv_dtype = DType::kF16;
  EngineOptions engine = {};                        // of the checks that go through an engine
  std::function<void(const Check&)> on_check = {};  // hears of each check as it ends
};

struct Diagnosis {
  BackendInfo subject, reference;
  Cut cut;
  std::vector<Check> checks;         // in the order of the recipe: the simplest first
  std::string step;                  // address of the first wrong step; empty if healthy, or if no step can be named
  std::optional<uint32_t> position;  // the first position at which it is wrong
  std::string verdict;               // one sentence

  bool healthy() const;
};

// What of the plan is looked at with these options. Throws Error if the tokens do not fit the plan.
Cut choose_cut(const Plan& plan, const DoctorOptions& options);

// Runs the checks. The reference runs once, on the longest sequence; because no row's bits depend on anything but its
// own sequence, everything else is compared with that. What the subject throws is found, not passed on. Throws Error
// if the tokens do not fit the plan or the reference itself cannot run it. Most of the time is the reference's: 2 s for
// the embedded model of 7 M weights, 7 s for one of 135 M in Q4_1. Memory: the weights on both sides and 8 bytes for
// each value that a step gives at each position; 93 MB and 312 MB for these two.
Diagnosis diagnose(Backend& subject, Backend& reference, const Plan& plan, const WeightSource& source,
                   const DoctorOptions& options);

}  // namespace llorch
