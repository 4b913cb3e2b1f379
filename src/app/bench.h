// Measurements of one model on one backend, beside the machine's roofs from the same run.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/load.h"
#include "backend/backend.h"

namespace llorch {

struct BenchOptions {
  uint32_t prompt = 512;        // tokens of the prefill
  uint32_t prefill_rows = 256;  // rows of one batch of it
  uint32_t context = 128;       // positions before the first decoded token
  uint32_t tokens = 32;         // decoded tokens, of each sequence
  uint32_t sequences = 1;       // that are decoded at once, each on its own pages
  Numerics numerics = Numerics::kExact;
  int repeats = 3;
  DType kv_dtype = DType::kF16;
};

// One kind of work: medians over the repeats.
struct Measured {
  double tokens_per_s = 0.0;
  double spread = 0.0;                                       // (slowest - fastest) / median of the repeats' times
  double bytes_per_token = 0;                                // counted, see decode_bytes()
  double flops_per_token = 0;                                // multiply-adds times two: matrices and attention
  double share_of_read_roof = 0.0, share_of_f32_peak = 0.0;  // of the roofs measured around each repeat
  double share_of_matrix_roof = 0.0;                         // the same; 0: there is no such roof
};

struct BenchResult {
  Roof roof;  // the best of the run
  Measured decode, prefill;
  double check_us = 0.0, hash_us = 0.0;          // check_logits() and hash_of_row() on the host; medians
  double handed_out_us = 0.0, sampled_us = 0.0;  // a decoded token by Program::run(), and by sample(); medians
  size_t weight_bytes = 0, program_bytes = 0, kv_bytes = 0;
  double peak_resident_bytes = 0.0;  // of the process, after load, prefill and a decoded token
  LoadTimes times;
};

// Bytes that one decoded token must read at `context` positions: every matrix once (an embedding table that is not also
// the LM head: one row) and norm weights, shared by the sequences, and the keys and values of all positions.
double decode_bytes(const Plan& plan, const KvShape& kv, uint32_t context, uint32_t sequences);

// Runs prefill and decode on a program that holds the KV pages for both.
BenchResult run_bench(Backend& backend, const Plan& plan, const WeightSource& source, const BenchOptions& options);

// The same widths with one layer, a prompt of kCheckedRows and one decoded token: are the logits the reference's, bit
// for bit? In fast, where such small batches are exact, too, kMoreCheckedRows more must be inside the bound of a run.
inline constexpr uint32_t kCheckedRows = 5, kMoreCheckedRows = 24;
bool outputs_match_reference(Backend& backend, const BenchOptions& options, const Plan& one_layer_plan,
                             const std::function<WeightSource()>& weights);

}  // namespace llorch
