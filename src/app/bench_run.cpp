// The timed part of llorch bench.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "app/bench.h"
#include "app/memory_plan.h"
#include "backend/reference/reference_backend.h"
#include "sampling/logits_hash.h"
#include "sampling/tripwire.h"
#include "trace/bounds.h"

namespace llorch {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One sequence on pages 0, 1, ...: rows [position, position + n) with the last one's logits.
Batch rows_of(const Plan& plan, uint32_t page_size, uint32_t position, uint32_t n) {
  Batch batch;
  const uint32_t n_pages = (position + n + page_size - 1) / page_size;
  for (uint32_t i = 0; i < n; ++i)
    batch.tokens.push_back(static_cast<int32_t>((uint64_t{position + i} * 2654435761u >> 7) % plan.vocab));
  batch.sequences.push_back({0, n, position, 0, n_pages});
  for (uint32_t i = 0; i < n_pages; ++i) batch.pages.push_back(i);
  batch.logit_rows.push_back(n - 1);
  return batch;
}

// One row of each of `n` sequences, all at this position, each on pages of its own.
Batch decodes_of(const Plan& plan, const KvShape& kv, uint32_t position, uint32_t n) {
  if (n == 1) return rows_of(plan, kv.page_size, position, 1);
  Batch batch;
  const uint32_t n_pages = position / kv.page_size + 1, stride = kv.n_pages / n;
  for (uint32_t s = 0; s < n; ++s) {
    batch.tokens.push_back(static_cast<int32_t>((uint64_t{position + s} * 2654435761u >> 7) % plan.vocab));
    batch.sequences.push_back({s, 1, position, s * n_pages, n_pages});
    for (uint32_t i = 0; i < n_pages; ++i) batch.pages.push_back(s * stride + i);
    batch.logit_rows.push_back(s);
  }
  return batch;
}

// Prefills positions [0, n) in batches of up to `rows`.
void prefill(Program& program, uint32_t n, uint32_t rows) {
  const uint32_t page_size = program.options().kv.page_size;
  for (uint32_t done = 0; done < n; done += rows) {
    Batch batch = rows_of(program.plan(), page_size, done, std::min(rows, n - done));
    if (done + rows < n) batch.logit_rows.clear();
    program.run(batch);
  }
}

// Largest resident size of this process so far.
double peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<double>(usage.ru_maxrss);
#else
  return static_cast<double>(usage.ru_maxrss) * 1024.0;
#endif
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The better of two: machines drift, so each piece of work stands between two measurements of the roofs.
Roof better(const Roof& a, const Roof& b) {
  return {std::max(a.read_bytes_per_s, b.read_bytes_per_s), std::max(a.flops_per_s, b.flops_per_s),
          std::max(a.matrix_flops_per_s, b.matrix_flops_per_s)};
}

// Repeats of one kind of work, each with the roofs around it.
struct Repeats {
  std::vector<double> seconds;
  std::vector<Roof> roofs;

  void add(double s, const Roof& roof) {
    seconds.push_back(s);
    roofs.push_back(roof);
  }

  // The median over the repeats; 0 where there is no such roof.
  double share_of(double Roof::*roof, double work) const {
    std::vector<double> shares;
    for (size_t i = 0; i < seconds.size(); ++i)
      shares.push_back(roofs[i].*roof > 0.0 ? work / seconds[i] / (roofs[i].*roof) : 0.0);
    return median(shares);
  }

  Measured measured(double tokens, double bytes_per_token, double flops_per_token) const {
    const auto [fastest, slowest] = std::minmax_element(seconds.begin(), seconds.end());
    return {.tokens_per_s = tokens / median(seconds),
            .spread = (*slowest - *fastest) / median(seconds),
            .bytes_per_token = bytes_per_token,
            .flops_per_token = flops_per_token,
            .share_of_read_roof = share_of(&Roof::read_bytes_per_s, tokens * bytes_per_token),
            .share_of_f32_peak = share_of(&Roof::flops_per_s, tokens * flops_per_token),
            .share_of_matrix_roof = share_of(&Roof::matrix_flops_per_s, tokens * flops_per_token)};
  }
};

// A decode step as the engine takes it.
void sample_rows(Program& program, const Batch& batch, uint32_t index) {
  const RowSampling sampling{SamplingParams{.temperature = 0.7f}, batch.tokens, index};
  program.sample(batch, std::vector<RowSampling>(batch.logit_rows.size(), sampling));
}

// Decodes one after the other, few sequences' begun while the one before runs if the program can, as the engine has it:
// these with the tokens that are sampled.
void decode_all(Program& program, const BenchOptions& options) {
  const uint32_t n_in_flight = options.sequences <= Program::kMaxRowsAhead ? program.max_in_flight() : 1;
  std::vector<Batch> batches;
  for (uint32_t i = 0; i < options.tokens; ++i) {
    batches.push_back(decodes_of(program.plan(), program.options().kv, options.context + i, options.sequences));
    if (i == 0 || n_in_flight == 1) continue;
    for (uint32_t row = 0; row < options.sequences; ++row) batches[i].tokens[row] = token_of_row_in_flight(row);
  }
  std::vector<std::vector<RowSampling>> rows;
  for (uint32_t i = 0; i < options.tokens; ++i)
    rows.emplace_back(options.sequences, RowSampling{SamplingParams{.temperature = 0.7f}, {}, i});
  uint32_t n_finished = 0;
  for (uint32_t i = 0; i < options.tokens; ++i) {
    program.start(batches[i], rows[i]);
    if (i + 1 - n_finished < n_in_flight) continue;
    program.finish();
    ++n_finished;
  }
  for (; n_finished < options.tokens; ++n_finished) program.finish();
}

// A step that hands its logits out, the host's work on these, and a step that samples, in turn: a row of logits then
// lies where the program's threads have left it.
void measure_logits_work(Program& program, const BenchOptions& options, BenchResult& result) {
  std::vector<double> check, hash, handed_out, sampled;
  for (uint32_t i = 0; i < options.tokens; ++i) {
    const Batch batch = rows_of(program.plan(), program.options().kv.page_size, options.context + i, 1);
    const auto run_start = Clock::now();
    const std::span<const float> logits = program.run(batch);
    handed_out.push_back(1e6 * seconds_since(run_start));
    const auto start = Clock::now();
    check_logits(logits);
    check.push_back(1e6 * seconds_since(start));
    const auto hash_start = Clock::now();
    hash_of_row(logits);
    hash.push_back(1e6 * seconds_since(hash_start));
    const auto sample_start = Clock::now();
    sample_rows(program, batch, i);
    sampled.push_back(1e6 * seconds_since(sample_start));
  }
  result.check_us = median(check);
  result.hash_us = median(hash);
  result.handed_out_us = median(handed_out);
  result.sampled_us = median(sampled);
}

// Multiply-adds times two of one token: all matrices but the embedding and, in prefill, the LM head; attention over
// `positions`.
double flops_per_token(const Plan& plan, double positions, bool with_head) {
  double flops = 0.0;
  for (const Step& step : plan.steps) {
    if (const auto* linear = std::get_if<Linear>(&step.op)) {
      const bool is_head = linear->y == plan.logits();
      if (!is_head || with_head) flops += 2.0 * plan.slot(linear->x).width * plan.slot(linear->y).width;
    } else if (const auto* attention = std::get_if<Attention>(&step.op)) {
      flops += 4.0 * plan.slot(attention->y).width * positions;
    }
  }
  return flops;
}

double nmse(std::span<const float> got, std::span<const float> want) {
  double error = 0.0, square = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{got[i]} - double{want[i]}, 2);
    square += std::pow(double{want[i]}, 2);
  }
  return error / square;
}

// Of a run in fast against an exact one (trace/bounds.h).
double bound_of_logits(const Plan& plan, uint32_t n_positions) {
  TraceInfo exact, fast;
  exact.numerics = "exact";
  fast.numerics = "fast";
  exact.kv_dtype = fast.kv_dtype = "f16";
  exact.tokens.resize(n_positions);
  for (size_t i = 0; i < plan.steps.size(); ++i) exact.steps.push_back(traced_step(plan, i));
  return run_bound(exact.steps.back(), bound_conditions(exact, fast));
}

}  // namespace

double decode_bytes(const Plan& plan, const KvShape& kv, uint32_t context, uint32_t sequences) {
  double bytes = 0.0;
  std::vector<bool> read(plan.weights.size(), false);
  const auto count = [&](WeightId id) {
    const Weight& w = plan.weight(id);
    if (read[static_cast<size_t>(id)]) return;
    read[static_cast<size_t>(id)] = true;
    bytes += static_cast<double>(w.shape.size() < 2 ? 1 : w.shape[0]) *
             static_cast<double>(row_bytes(w.dtype, w.shape.back()));
  };
  for (const Step& step : plan.steps) {
    if (const auto* linear = std::get_if<Linear>(&step.op)) {
      for (const WeightId id : linear->weights) count(id);
      for (const WeightId id : linear->biases) count(id);
    } else if (const auto* norm = std::get_if<RmsNorm>(&step.op)) {
      count(norm->weight);
    }
  }
  return bytes / sequences + static_cast<double>(kv_page_bytes(plan, kv)) / kv.page_size * context;
}

BenchResult run_bench(Backend& backend, const Plan& plan, const WeightSource& source, const BenchOptions& options) {
  BenchResult result;
  CompileOptions compile;
  compile.numerics = options.numerics;
  compile.max_rows = std::max(options.prefill_rows, options.sequences);
  compile.max_logit_rows = options.sequences;
  const auto pages_of = [&](uint32_t n) { return (n + compile.kv.page_size - 1) / compile.kv.page_size; };
  compile.kv.n_pages =
      std::max(pages_of(options.prompt), options.sequences * pages_of(options.context + options.tokens));
  compile.kv.dtype = options.kv_dtype;
  check_memory(backend.memory_needs(plan, compile), place_of(backend));
  const auto load_start = Clock::now();
  const auto weights = backend.place(plan, source);
  result.times.load_ms = 1e3 * seconds_since(load_start);
  result.times.bytes = weight_bytes(plan);
  result.weight_bytes = weights->bytes();
  const auto program = backend.compile(plan, weights, compile);
  result.program_bytes = program->bytes();
  result.kv_bytes = kv_page_bytes(plan, compile.kv) * compile.kv.n_pages;

  // Warm-up, and the peak of memory before the roofs' own buffers.
  prefill(*program, options.prompt, options.prefill_rows);
  // Of several sequences the pages hold keys and values of decodes at each position, as a prefill would leave them.
  if (options.sequences == 1)
    prefill(*program, options.context, options.prefill_rows);
  else
    for (uint32_t i = 0; i < options.context; ++i) program->run(decodes_of(plan, compile.kv, i, options.sequences));
  sample_rows(*program, decodes_of(plan, compile.kv, options.context, options.sequences), 0);
  result.peak_resident_bytes = peak_resident_bytes();
  Repeats decodes, prefills;
  Roof before = result.roof = backend.measure_roof();
  // The roofs' buffers have pushed weights out of caches and address tables: a step before the clock starts brings back
  // what each step finds.
  const auto timed = [&](Repeats& repeats, const auto& work) {
    sample_rows(*program, decodes_of(plan, compile.kv, options.context, options.sequences), 0);
    const auto start = Clock::now();
    work();
    const double seconds = seconds_since(start);
    const Roof after = backend.measure_roof();
    repeats.add(seconds, better(before, after));
    result.roof = better(result.roof, after);
    before = after;
  };
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    timed(prefills, [&] { prefill(*program, options.prompt, options.prefill_rows); });
    timed(decodes, [&] { decode_all(*program, options); });
  }
  measure_logits_work(*program, options, result);
  const uint32_t middle = options.context + options.tokens / 2;
  result.decode =
      decodes.measured(double{1} * options.tokens * options.sequences,
                       decode_bytes(plan, compile.kv, middle, options.sequences), flops_per_token(plan, middle, true));
  result.prefill = prefills.measured(options.prompt, 0.0, flops_per_token(plan, (options.prompt + 1) / 2.0, false));
  return result;
}

bool outputs_match_reference(Backend& backend, const BenchOptions& options, const Plan& plan,
                             const std::function<WeightSource()>& weights) {
  const std::unique_ptr<Backend> reference = make_reference_backend();
  std::vector<std::vector<float>> exact(2), many(2);
  for (const size_t i : {0, 1}) {
    Backend& b = i == 0 ? backend : *reference;
    CompileOptions compile;
    compile.numerics = i == 0 ? options.numerics : Numerics::kExact;
    compile.kv.n_pages = 1;
    compile.kv.dtype = options.kv_dtype;
    compile.max_logit_rows = 1;
    const auto program = b.compile(plan, b.place(plan, weights()), compile);
    const auto run = [&](uint32_t position, uint32_t n, std::vector<float>& all) {
      const std::span<const float> out = program->run(rows_of(plan, compile.kv.page_size, position, n));
      all.insert(all.end(), out.begin(), out.end());
    };
    run(0, kCheckedRows, exact[i]);
    run(kCheckedRows, 1, exact[i]);
    if (options.numerics == Numerics::kFast) run(kCheckedRows + 1, kMoreCheckedRows, many[i]);
  }
  const bool finite = std::all_of(exact[1].begin(), exact[1].end(), [](float x) { return std::isfinite(x); });
  if (!finite || std::memcmp(exact[0].data(), exact[1].data(), exact[1].size() * sizeof(float)) != 0) return false;
  return options.numerics == Numerics::kExact ||
         nmse(many[0], many[1]) <= bound_of_logits(plan, kCheckedRows + 1 + kMoreCheckedRows);
}

}  // namespace llorch
