// What a load showed, as figures.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/http_load_client.h"

namespace llorch {

// The smallest value that at least this share of them does not exceed (nearest rank); 0 of none. Reorders the values.
double percentile(std::vector<float>& values, double share);

struct LoadSummary {
  uint32_t clients = 0;
  size_t requests = 0, errors = 0;
  std::string first_error;
  size_t tokens = 0;
  double seconds = 0.0, tokens_per_s = 0.0;  // of all clients together
  double ttft_median_ms = 0.0, ttft_p90_ms = 0.0, ttft_p99_ms = 0.0;
  double gap_median_ms = 0.0, gap_p99_ms = 0.0;  // between one token of a request and the next
  double request_tokens_per_s = 0.0;             // median over requests, of each since its first token
};

// Of the answers without an error, but for `requests` and `errors`.
LoadSummary summarize(const LoadRun& run, uint32_t clients);

nlohmann::json to_json(const LoadSummary& summary);

// One line for each.
std::string load_table(const std::vector<LoadSummary>& summaries);

}  // namespace llorch
