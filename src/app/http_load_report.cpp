// Percentiles over all requests and all gaps, not over averages of them.
#include "app/http_load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace llorch {

double percentile(std::vector<float>& values, double share) {
  if (values.empty()) return 0.0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const auto at = static_cast<std::ptrdiff_t>(std::clamp(rank, 1.0, static_cast<double>(values.size()))) - 1;
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return static_cast<double>(values[static_cast<size_t>(at)]);
}

LoadSummary summarize(const LoadRun& run, uint32_t clients) {
  LoadSummary out;
  out.clients = clients;
  out.requests = run.answers.size();
  out.seconds = run.seconds;
  std::vector<float> ttft, gaps, rates;
  for (const LoadAnswer& answer : run.answers) {
    if (!answer.error.empty()) {
      if (out.errors++ == 0) out.first_error = answer.error;
      continue;
    }
    out.tokens += answer.ids.size();
    ttft.push_back(static_cast<float>(answer.ttft_ms));
    gaps.insert(gaps.end(), answer.gaps_ms.begin(), answer.gaps_ms.end());
    if (answer.decode_ms > 0) {
      rates.push_back(static_cast<float>(static_cast<double>(answer.ids.size() - 1) * 1e3 / answer.decode_ms));
    }
  }
  if (run.seconds > 0) out.tokens_per_s = static_cast<double>(out.tokens) / run.seconds;
  out.ttft_median_ms = percentile(ttft, 0.5);
  out.ttft_p90_ms = percentile(ttft, 0.9);
  out.ttft_p99_ms = percentile(ttft, 0.99);
  out.gap_median_ms = percentile(gaps, 0.5);
  out.gap_p99_ms = percentile(gaps, 0.99);
  out.request_tokens_per_s = percentile(rates, 0.5);
  return out;
}

nlohmann::json to_json(const LoadSummary& s) {
  return {{"clients", s.clients},
          {"requests", s.requests},
          {"errors", s.errors},
          {"tokens", s.tokens},
          {"seconds", s.seconds},
          {"tokens_per_s", s.tokens_per_s},
          {"ttft_ms", {{"median", s.ttft_median_ms}, {"p90", s.ttft_p90_ms}, {"p99", s.ttft_p99_ms}}},
          {"token_gap_ms", {{"median", s.gap_median_ms}, {"p99", s.gap_p99_ms}}},
          {"request_tokens_per_s", s.request_tokens_per_s}};
}

std::string load_table(const std::vector<LoadSummary>& summaries) {
  std::string out =
      fmt::format("{:>8}{:>10}{:>8}{:>10}{:>9}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}\n", "clients", "requests",
                  "errors", "tokens", "s", "tok/s", "ttft ms", "p90", "p99", "gap ms", "p99", "tok/s each");
  for (const LoadSummary& s : summaries) {
    out +=
        fmt::format("{:>8}{:>10}{:>8}{:>10}{:>9.2f}{:>11.1f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.3f}{:>10.3f}{:>12.1f}\n",
                    s.clients, s.requests, s.errors, s.tokens, s.seconds, s.tokens_per_s, s.ttft_median_ms,
                    s.ttft_p90_ms, s.ttft_p99_ms, s.gap_median_ms, s.gap_p99_ms, s.request_tokens_per_s);
  }
  return out;
}

}  // namespace llorch
