// A flight recorder's bundle: one request as data, enough to run it again elsewhere and to see whether it goes the same
// way.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/record.h"

namespace llorch {

// What a request ran on: the same for all requests of a worker.
struct BundleOrigin {
  std::string build;     // "llorch 0.1.0"
  std::string backend;   // "cpu"
  std::string device;    // "AMD EPYC 9654 (avx512vnni, 2 threads)"
  std::string numerics;  // "exact"
  std::string model;     // its name
  std::string model_path;
  std::optional<uint64_t> model_hash;         // hash_tensors()
  std::string no_model_hash;                  // why there is none
  std::map<std::string, uint64_t> weights;    // hash of each tensor, if there is a model_hash
  std::map<std::string, std::string> config;  // sizes of the model, for people
  uint64_t plan_hash = 0;
  KvShape kv;
  uint32_t context = 0;                              // positions of one sequence
  uint32_t max_rows = 0;                             // of a batch, as compiled: a fault's address may depend on it
  uint32_t max_step_rows = 0, max_prefill_rows = 0;  // of a step of the engine
};

struct Bundle {
  BundleOrigin origin;
  std::string recorded_at;  // RFC 3339, UTC
  bool redacted = true;     // record.tokens is empty: counts and digests stand for them
  SequenceRecord record;
  uint32_t n_generated = 0;
  uint64_t prompt_digest = 0, generated_digest = 0;

  // Positions that a program must hold to sample every recorded row, and the one that failed.
  uint32_t n_positions() const { return record.n_prompt + n_generated + 1; }
};

// XXH3-64 of the ids. Whoever has the model can try prompts until one fits: it identifies, it does not hide.
uint64_t tokens_digest(std::span<const int32_t> tokens);

// with_prompts false: without token ids.
Bundle make_bundle(BundleOrigin origin, SequenceRecord record, std::string recorded_at, bool with_prompts);

// How it ended: "MAX_TOKENS", "EOS", "CANCELLED", or the failure's code.
std::string end_text(const SequenceRecord& record);

}  // namespace llorch
