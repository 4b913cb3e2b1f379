// Small plans with random weights, for tests that run one plan on several backends.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "plan/builder.h"
#include "tensor/blocks.h"

namespace llorch::test {

// How wild the random floats are.
enum class Values { kPlain, kWide, kWithNonFinite };

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  float normal() { return std::normal_distribution<float>()(engine_); }

  float value(Values kind) {
    if (kind == Values::kPlain) return normal();
    const uint32_t dice = below(200);
    if (dice == 0) return 0.0f;
    if (dice == 1) return -0.0f;
    if (dice == 2) return normal() * 1e-30f;
    if (dice == 3) return normal() * 1e-42f;  // subnormal
    if (dice == 4) return normal() * 1e6f;
    if (kind == Values::kWithNonFinite) {
      if (dice == 5 && below(4) == 0) return std::numeric_limits<float>::quiet_NaN();
      if (dice == 6 && below(4) == 0) return std::numeric_limits<float>::infinity();
      if (dice == 7 && below(4) == 0) return -std::numeric_limits<float>::infinity();
    }
    return normal();
  }

  std::vector<float> values(size_t n, Values kind) {
    std::vector<float> v(n);
    for (float& x : v) x = value(kind);
    return v;
  }

  // Random bytes of a tensor with finite values of moderate size.
  std::vector<std::byte> tensor(DType dtype, size_t rows, size_t cols) {
    const size_t n_blocks = rows * (cols / block_elements(dtype));
    std::vector<std::byte> bytes(n_blocks * block_bytes(dtype));
    for (size_t i = 0; i < n_blocks; ++i) write_block(dtype, bytes.data() + i * block_bytes(dtype));
    return bytes;
  }

 private:
  uint16_t half(float scale) { return f32_to_f16_saturate(normal() * scale); }

  void write_block(DType dtype, std::byte* out) {
    const auto put = [&](const auto& value) { std::memcpy(out, &value, sizeof value); };
    if (dtype == DType::kF32) put(normal());
    if (dtype == DType::kF16) put(half(1.0f));
    if (dtype == DType::kBF16) put(f32_to_bf16(normal()));
    visit_block_type(dtype, [&](auto block) {
      for (size_t i = 0; i < sizeof block; ++i)
        reinterpret_cast<uint8_t*>(&block)[i] = static_cast<uint8_t>(below(256));
      constexpr bool kSuperblock = block.kElements == 256;  // integer scales of up to 63 or 128
      block.d = half(dtype == DType::kQ8_0 ? 0.02f : kSuperblock ? 0.003f : 0.2f);
      if constexpr (requires { block.m; }) block.m = half(1.0f);
      if constexpr (requires { block.dmin; }) block.dmin = half(0.03f);
      put(block);
    });
  }

  std::mt19937_64 engine_;
};

// Weights by name; makes the source that backends place from.
class RandomWeights {
 public:
  explicit RandomWeights(uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }

  // Adds a matrix of random values to the plan.
  WeightId matrix(PlanBuilder& b, const std::string& name, DType dtype, int64_t rows, int64_t cols) {
    bytes_[name] = random_.tensor(dtype, static_cast<size_t>(rows), static_cast<size_t>(cols));
    return b.weight(name, dtype, {rows, cols});
  }
  WeightId vector(PlanBuilder& b, const std::string& name, int64_t n) {
    bytes_[name] = random_.tensor(DType::kF32, 1, static_cast<size_t>(n));
    return b.weight(name, DType::kF32, {n});
  }
  // Adds a float32 table of given values: the input of a plan, one row a token.
  WeightId table(PlanBuilder& b, const std::string& name, const std::vector<float>& values, int64_t cols) {
    auto& bytes = bytes_[name];
    bytes.resize(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return b.weight(name, DType::kF32, {static_cast<int64_t>(values.size()) / cols, cols});
  }

  WeightSource source() const {
    return {.open =
                [this](const Weight& w) {
                  return Tensor{w.name, w.dtype, w.shape, bytes_.at(w.name)};
                },
            .close = [](const Tensor&) {}};
  }

 private:
  Random random_;
  std::map<std::string, std::vector<std::byte>> bytes_;
};

inline RopeTable random_rope(Random& random, uint32_t context, uint32_t half_dim) {
  RopeTable table{context, half_dim, {}, {}};
  for (uint32_t i = 0; i < context * half_dim; ++i) {
    const double angle = random.normal() * 10.0;
    table.cos.push_back(static_cast<float>(std::cos(angle)));
    table.sin.push_back(static_cast<float>(std::sin(angle)));
  }
  return table;
}

// A batch of one sequence of n rows from position 0, every row wanting logits. Pages 0, 1, ...
inline Batch prompt(std::vector<int32_t> tokens, uint32_t page_size) {
  Batch batch;
  const auto n = static_cast<uint32_t>(tokens.size());
  const uint32_t n_pages = (n + page_size - 1) / page_size;
  batch.tokens = std::move(tokens);
  batch.sequences.push_back({0, n, 0, 0, n_pages});
  for (uint32_t i = 0; i < n_pages; ++i) batch.pages.push_back(i);
  for (uint32_t i = 0; i < n; ++i) batch.logit_rows.push_back(i);
  return batch;
}

// Bits equal, any NaN equal to any NaN.
inline ::testing::AssertionResult same_bits(std::span<const float> got, std::span<const float> want, size_t width) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(want[i])) continue;
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(want[i]))
      return ::testing::AssertionFailure()
             << fmt::format("row {} element {}: got {} ({:08x}), expected {} ({:08x})", i / width, i % width, got[i],
                            std::bit_cast<uint32_t>(got[i]), want[i], std::bit_cast<uint32_t>(want[i]));
  }
  return ::testing::AssertionSuccess();
}

// What a program gave for one batch: the output of each step (empty where it was not shown), then the logits.
using Outputs = std::vector<std::vector<float>>;

// Runs a batch and keeps what it shows; with no step to show, as an engine runs it.
inline Outputs run_and_show(Program& program, const Batch& batch, const StepSet& shown) {
  Outputs out(shown.size());
  const bool any = std::find(shown.begin(), shown.end(), true) != shown.end();
  const std::span<const float> logits = any ? program.trace(batch, shown,
                                                            [&](size_t step, std::span<const float> output) {
                                                              out[step].assign(output.begin(), output.end());
                                                            })
                                            : program.run(batch);
  out.emplace_back(logits.begin(), logits.end());
  return out;
}

inline StepSet steps_named(const Plan& plan, std::initializer_list<const char*> names) {
  StepSet steps(plan.steps.size());
  for (const char* name : names) steps.at(static_cast<size_t>(plan.find_step(name))) = true;
  return steps;
}

}  // namespace llorch::test
