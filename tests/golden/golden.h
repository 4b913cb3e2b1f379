// A golden file's model and cases, what a backend says to them, and how far that may be from what transformers said.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backends_under_test.h"
#include "format/checkpoint.h"
#include "model/model.h"

namespace llorch::test {

inline constexpr double kComparableMargin = 0.01;  // below it, rounding may choose the other token
inline constexpr uint32_t kMaxRows = 200;          // of one batch: 513 tokens are prefilled in three chunks
// Of a prompt, where the set is short: an EPYC emulates 250 million a second; 513 tokens of the 7 M model are 3.7e9.
inline constexpr double kEmulatedMultiplyAdds = 3e8;

// One prompt of a golden file.
struct Case {
  std::string name;
  std::vector<int32_t> prompt, greedy;
  std::vector<double> margins;        // of the greedy tokens over the next best
  size_t comparable = 0;              // leading greedy tokens that must be equal
  std::vector<uint32_t> logit_ids;    // some or all of the vocabulary
  std::vector<double> logits;         // of these ids, at the last prompt position
  double mean = 0, std = 0, lse = 0;  // of all of them
  double float32_error = 0;           // transformers in float32 against float64
  double f16_kv_shift = 0;            // float64 with keys and values rounded to f16 against float64
};

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) fail("{}: cannot be opened", path.string());
  return nlohmann::json::parse(file);
}

// Leading tokens whose margin is at least this one.
inline size_t comparable_steps(const std::vector<double>& margins, double least) {
  const auto small = std::find_if(margins.begin(), margins.end(), [&](double m) { return m < least; });
  return static_cast<size_t>(small - margins.begin());
}

inline Case read_case(const nlohmann::json& j) {
  Case c;
  c.prompt = j.at("prompt_tokens").get<std::vector<int32_t>>();
  c.name = fmt::format("{} tokens", c.prompt.size());
  c.greedy = j.at("greedy_tokens").get<std::vector<int32_t>>();
  c.margins = j.at("margins").get<std::vector<double>>();
  c.comparable = comparable_steps(c.margins, kComparableMargin);
  const nlohmann::json& logits = j.at("logits");
  c.logit_ids = logits.at("ids").get<std::vector<uint32_t>>();
  c.logits = logits.at("values").get<std::vector<double>>();
  c.mean = logits.at("mean");
  c.std = logits.at("std");
  c.lse = logits.at("logsumexp");
  c.float32_error = j.at("float32_error");
  c.f16_kv_shift = j.at("f16_kv_shift");
  return c;
}

// A checkpoint and its plan.
class Subject {
 public:
  explicit Subject(const std::filesystem::path& path)
      : checkpoint_(Checkpoint::open(path)), model_(load_model(checkpoint_)) {}

  const Plan& plan() const { return model_.plan; }

  std::shared_ptr<const PlacedWeights> place(Backend& backend) const {
    return backend.place(plan(), {.open = [this](const Weight& w) { return checkpoint_.at(w.name); },
                                  .close = [this](const Tensor& t) { checkpoint_.release(t); }});
  }

 private:
  Checkpoint checkpoint_;
  Model model_;
};

// A subject on a backend, and how sequences run there.
struct Placed {
  Placed(Backend& on, const Subject& of, DType kv_dtype, Numerics in = Numerics::kExact)
      : backend(on), subject(of), weights(of.place(on)), kv(kv_dtype), numerics(in) {}

  Backend& backend;
  const Subject& subject;
  std::shared_ptr<const PlacedWeights> weights;
  DType kv;
  Numerics numerics;
};

// One sequence in a program of its own.
class Sequence {
 public:
  Sequence(const Placed& placed, size_t most) : n_pages_((static_cast<uint32_t>(most) + kPage - 1) / kPage) {
    CompileOptions options;
    options.kv = {.n_pages = n_pages_, .page_size = kPage, .dtype = placed.kv};
    options.numerics = placed.numerics;
    options.max_rows = kMaxRows;
    options.max_logit_rows = 1;
    program_ = placed.backend.compile(placed.subject.plan(), placed.weights, options);
  }

  // Appends the tokens. Logits [vocab] of the last one, valid until the next call.
  std::span<const float> append(std::span<const int32_t> tokens) {
    std::span<const float> logits;
    while (!tokens.empty()) {
      const size_t n = std::min<size_t>(tokens.size(), kMaxRows);
      Batch batch;
      batch.tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(n));
      batch.sequences.push_back({0, batch.rows(), position_, 0, n_pages_});
      for (uint32_t page = 0; page < n_pages_; ++page) batch.pages.push_back(page);
      tokens = tokens.subspan(n);
      if (tokens.empty()) batch.logit_rows = {batch.rows() - 1};
      logits = program_->run(batch);
      position_ += batch.rows();
    }
    return logits;
  }

 private:
  static constexpr uint32_t kPage = 64;
  uint32_t n_pages_;
  uint32_t position_ = 0;
  std::unique_ptr<Program> program_;
};

// What a backend said to one case: logits after the prompt and after each of its own greedy tokens but the last.
struct Answer {
  std::vector<std::vector<float>> logits;
  std::vector<int32_t> greedy;
};

inline Answer answer(const Placed& placed, const Case& c) {
  Sequence sequence(placed, c.prompt.size() + c.greedy.size());
  Answer a;
  std::span<const int32_t> next = c.prompt;
  for (size_t step = 0; step < c.comparable || step == 0; ++step) {
    const std::span<const float> logits = sequence.append(next);
    a.logits.emplace_back(logits.begin(), logits.end());
    a.greedy.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    next = std::span(a.greedy).last(1);
  }
  return a;
}

// Largest difference to the golden logits, of those listed and of mean, deviation and log-sum-exp of all, none of which
// can differ by more than the logits themselves.
inline double largest_difference(const std::vector<float>& got, const Case& c) {
  double worst = 0;
  for (size_t i = 0; i < c.logits.size(); ++i)
    worst = std::max(worst, std::abs(double{got[c.logit_ids[i]]} - c.logits[i]));
  const auto n = static_cast<double>(got.size());
  double sum = 0, squares = 0, exponentials = 0;
  for (const float x : got) sum += x;
  for (const float x : got) squares += (x - sum / n) * (x - sum / n);
  const double high = *std::max_element(got.begin(), got.end());
  for (const float x : got) exponentials += std::exp(x - high);
  return std::max({worst, std::abs(sum / n - c.mean), std::abs(std::sqrt(squares / n) - c.std),
                   std::abs(high + std::log(exponentials) - c.lse)});
}

inline void expect_greedy(const Answer& a, const Case& c) {
  for (size_t i = 0; i < c.comparable; ++i)
    if (a.greedy[i] != c.greedy[i])
      FAIL() << fmt::format("greedy token {}: got {}, expected {} ({} are comparable)", i, a.greedy[i], c.greedy[i],
                            c.comparable);
}

inline void expect_same_bits(const Answer& got, const Answer& want) {
  ASSERT_EQ(got.logits.size(), want.logits.size());
  for (size_t step = 0; step < want.logits.size(); ++step)
    for (size_t i = 0; i < want.logits[step].size(); ++i) {
      const float g = got.logits[step][i], w = want.logits[step][i];
      ASSERT_EQ(std::bit_cast<uint32_t>(g), std::bit_cast<uint32_t>(w))
          << fmt::format("step {}, logit {}: got {}, expected {}", step, i, g, w);
    }
}

// Of a prompt's products with the model's matrices.
inline double multiply_adds(const Plan& plan, const Case& c) {
  double elements = 0;
  for (const Weight& w : plan.weights)
    if (w.shape.size() == 2) elements += static_cast<double>(w.shape[0] * w.shape[1]);
  return elements * static_cast<double>(c.prompt.size());
}

struct Param {
  const char* name;  // of the golden file
  DType kv;
};

inline void PrintTo(const Param& param, std::ostream* out) {
  *out << param.name << (param.kv == DType::kF32 ? ", f32 KV" : ", f16 KV");
}

class GoldenTest : public ::testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    const nlohmann::json golden =
        read_json(fmt::format(LLORCH_SOURCE_DIR "/tests/golden/{}.golden.json", GetParam().name));
    path_ = std::filesystem::path(LLORCH_SOURCE_DIR) / golden.at("model").get<std::string>();
    for (const auto& c : golden.at("cases")) cases_.push_back(read_case(c));
    ASSERT_EQ(cases_.size(), 5u);
  }

  // Without those that an emulator has no time for; these are named.
  std::vector<Case> cases_run_here(const Plan& plan) const {
    std::vector<Case> cases;
    for (const Case& c : cases_)
      if (is_short_set() && multiply_adds(plan, c) > kEmulatedMultiplyAdds)
        fmt::print("  {}: was not run, it takes too long when emulated\n", c.name);
      else
        cases.push_back(c);
    return cases;
  }

  std::filesystem::path path_;
  std::vector<Case> cases_;
};

}  // namespace llorch::test
