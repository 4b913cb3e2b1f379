// The CPU backend apart from its arithmetic: threads, the interleaved layout, and what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <random>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/layout.h"
#include "backend/cpu/thread_pool.h"
#include "backend/slots.h"
#include "base/error.h"
#include "plan/builder.h"

namespace llorch {
namespace {

using cpu::InterleavedMatrix;
using cpu::ThreadPool;
using testing::HasSubstr;

// Longer than threads spin before they sleep.
void outlast_spinning() { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }

TEST(ThreadPool, RunsEachTaskOnceInManyShortRuns) {
  const uint32_t tasks[] = {5, 0, 1, 40, 2};
  for (const int n : {1, 2, 3, 7}) {
    ThreadPool pool(n);
    EXPECT_EQ(pool.size(), n);
    std::vector<int> done[std::size(tasks)], by_thread(static_cast<size_t>(n), 0);
    for (size_t s = 0; s < std::size(tasks); ++s) done[s].resize(tasks[s]);
    for (int i = 0; i < 200; ++i)
      pool.run(tasks, [&](size_t stage, uint32_t task, int thread) {
        ++done[stage][task];
        ++by_thread[static_cast<size_t>(thread)];  // a thread's own memory: no two tasks at once
      });
    for (size_t s = 0; s < std::size(tasks); ++s) EXPECT_EQ(done[s], std::vector<int>(tasks[s], 200));
    EXPECT_EQ(std::accumulate(by_thread.begin(), by_thread.end(), 0), 200 * 48);
    pool.run({}, [](size_t, uint32_t, int) { FAIL() << "a task of no stage"; });
  }
  EXPECT_THROW(ThreadPool(0), BugError);
}

TEST(ThreadPool, TheCallerIsThreadZero) {
  ThreadPool pool(2);
  const uint32_t tasks[] = {50, 50};
  std::vector<int> wrong(2, 0);
  const std::thread::id caller = std::this_thread::get_id();
  pool.run(tasks, [&](size_t, uint32_t, int thread) {
    if ((std::this_thread::get_id() == caller) != (thread == 0)) ++wrong[static_cast<size_t>(thread)];
  });
  EXPECT_EQ(wrong, std::vector<int>(2, 0));
}

// Plain memory: the thread sanitizer would see a stage that does not wait for the one before it.
TEST(ThreadPool, StagesSeeWhatTheStagesBeforeThemWrote) {
  for (const int n : {1, 2, 3}) {
    ThreadPool pool(n);
    const std::vector<uint32_t> tasks(100, 4);
    int written[4] = {}, wrong[4] = {}, seen[4] = {};
    for (int round = 1; round <= 5; ++round)
      pool.run(tasks, [&](size_t stage, uint32_t task, int) {
        if (stage % 2 == 0) {
          ++written[task];
        } else {
          for (const int w : written) wrong[task] += w != (round - 1) * 50 + static_cast<int>(stage / 2) + 1;
          ++seen[task];
        }
      });
    EXPECT_EQ(std::accumulate(wrong, wrong + 4, 0), 0);
    EXPECT_EQ(std::accumulate(seen, seen + 4, 0), 5 * 50 * 4);
  }
}

TEST(ThreadPool, ThreadsThatSleepAreWoken) {
  ThreadPool pool(3);
  const uint32_t tasks[] = {3, 3, 1};
  std::vector<int> late(3, -1);
  for (int i = 0; i < 6; ++i) {
    outlast_spinning();  // the workers sleep
    int sum = 0;
    pool.run(tasks, [&](size_t stage, uint32_t task, int) {
      if (stage == 0 && task == static_cast<uint32_t>(i % 3)) outlast_spinning();  // the others sleep behind the stage
      if (stage == 0) late[task] = i;
      if (stage == 2) sum = std::accumulate(late.begin(), late.end(), 0);
    });
    EXPECT_EQ(sum, 3 * i);
  }
}

TEST(ThreadPool, RethrowsOneExceptionAfterAllTasksAndGoesOn) {
  for (const int n : {1, 3}) {
    ThreadPool pool(n);
    const uint32_t tasks[] = {4, 4};
    for (size_t thrower = 0; thrower < 8; ++thrower) {
      std::vector<int> calls(8, 0);
      try {
        pool.run(tasks, [&](size_t stage, uint32_t task, int) {
          ++calls[stage * 4 + task];
          if (stage * 4 + task == thrower) fail("task {} failed", thrower);
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& error) {
        EXPECT_EQ(error.what(), fmt::format("task {} failed", thrower));
      }
      EXPECT_EQ(calls, std::vector<int>(8, 1));
      EXPECT_NO_THROW(pool.run(tasks, [](size_t, uint32_t, int) {}));
    }
    EXPECT_THROW(pool.run(tasks, [](size_t, uint32_t, int) { fail("all failed"); }), Error);
    EXPECT_NO_THROW(pool.run(tasks, [](size_t, uint32_t, int) {}));
  }
}

// Any bits will do, NaN and infinities among them.
std::vector<std::byte> random_bytes(size_t n) {
  std::mt19937_64 engine(n);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(engine());
  return bytes;
}

TEST(InterleavedMatrix, GivesBackTheRowsOfTheFile) {
  for (const DType dtype : kDTypes)
    for (const int64_t rows : {1, 15, 16, 17, 50})
      for (const int64_t cols : {1, 32, 63, 96, 100, 288, 768}) {
        if (cols % static_cast<int64_t>(block_elements(dtype)) != 0) continue;
        const auto bytes = random_bytes(static_cast<size_t>(rows) * row_bytes(dtype, cols));
        const Tensor tensor{"w", dtype, {rows, cols}, bytes};
        cpu::Buffer memory(InterleavedMatrix::bytes(dtype, rows, cols));
        InterleavedMatrix matrix(dtype, rows, cols, memory.data());
        EXPECT_EQ(matrix.groups(), (rows + 15) / 16);
        EXPECT_GE(matrix.bytes(), bytes.size());
        matrix.fill(tensor, matrix.groups() / 2, matrix.groups());
        matrix.fill(tensor, 0, matrix.groups() / 2);
        std::vector<float> want(static_cast<size_t>(cols)), got(want.size());
        for (int64_t r = 0; r < rows; ++r)
          for (const float scale : {1.0f, 0.37f}) {
            read_row(tensor, r, want.data());
            matrix.read_row(r, scale, got.data());
            for (size_t k = 0; k < want.size(); ++k) {
              const float scaled = want[k] * scale;
              ASSERT_TRUE(std::bit_cast<uint32_t>(got[k]) == std::bit_cast<uint32_t>(scaled) ||
                          (std::isnan(got[k]) && std::isnan(scaled)))
                  << to_string(dtype) << " [" << rows << ", " << cols << "] row " << r << " element " << k;
            }
          }
      }
}

constexpr int32_t kVocab = 20;

// Embed, one layer of attention with 2 heads on 1, logits. Context 64.
Plan small_plan() {
  RopeTable rope{64, 4, {}, {}};
  for (uint32_t i = 0; i < 64 * 4; ++i) {
    rope.cos.push_back(std::cos(static_cast<float>(i)));
    rope.sin.push_back(std::sin(static_cast<float>(i)));
  }
  PlanBuilder b(kVocab, 1, {2, 1, 8}, std::move(rope));
  const SlotId qkv = b.slot("qkv", 32), attn = b.slot("attn", 16), last = b.slot("last", 16);
  const SlotId logits = b.slot("logits", kVocab);
  b.step("embed", Embed{qkv, b.weight("table", DType::kF32, {kVocab, 32})});
  b.step("rope", RopeAppend{qkv, 0, RopePairs::kInterleaved});
  b.step("attn", Attention{qkv, attn, 0, 0.25f});
  b.step("gather", GatherRows{attn, last});
  b.step("logits", Linear{last, logits, {b.weight("head", DType::kF32, {kVocab, 16})}, {}, false});
  return std::move(b).build();
}

WeightSource small_weights() {
  const auto values = std::make_shared<std::vector<float>>();  // of the open weight
  return {.open =
              [values](const Weight& w) {
                std::mt19937 engine(static_cast<uint32_t>(w.name.size()));
                std::normal_distribution<float> normal;
                values->resize(static_cast<size_t>(w.shape[0] * w.shape[1]));
                for (float& v : *values) v = normal(engine);
                return Tensor{w.name, w.dtype, w.shape, std::as_bytes(std::span(*values))};
              },
          .close = [](const Tensor&) {}};
}

CompileOptions small_options() { return {.kv = {.n_pages = 4, .page_size = 16}, .max_rows = 8}; }

// One row of one sequence whose positions before it are in page 0.
Batch one_row(int32_t token, uint32_t position) { return {{token}, {{0, 1, position, 0, 1}}, {0}, {0}}; }

std::vector<float> run(Program& program, const Batch& batch) {
  const std::span<const float> logits = program.run(batch);
  return {logits.begin(), logits.end()};
}

template <typename Exception, typename Action>
std::string what_of(Action action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

TEST(CpuBackend, NamesWhatItRunsOn) {
  const std::vector<std::string> names = cpu_isa_names();
  ASSERT_FALSE(names.empty());
  for (const std::string& isa : names) {
    const auto backend = make_cpu_backend({3, isa});
    EXPECT_EQ(backend->info().name, "cpu");
    EXPECT_THAT(backend->info().device, HasSubstr("(" + isa + ", 3 threads)"));
  }
  EXPECT_THAT(make_cpu_backend({1, ""})->info().device, HasSubstr("(" + names.front() + ", "));
}

// What a visitor throws is its own business: it is not reported as the failure of a step.
TEST(CpuBackend, AVisitorsExceptionComesThrough) {
  {
    const auto backend = make_cpu_backend({2, ""});
    const Plan plan = small_plan();
    const auto program = backend->compile(plan, backend->place(plan, small_weights()), small_options());
    const auto stop = [](size_t, std::span<const float>) { throw std::range_error("enough"); };
    EXPECT_EQ(what_of<std::range_error>([&] { program->trace(one_row(1, 0), StepSet(plan.steps.size(), true), stop); }),
              "enough");
    EXPECT_EQ(run(*program, one_row(1, 0)).size(), plan.vocab);  // it goes on
  }
}

TEST(CpuBackend, PlacedWeightsReadBackDequantized) {
  const auto backend = make_cpu_backend({2, ""});
  const Plan plan = small_plan();
  const WeightSource source = small_weights();
  const auto weights = backend->place(plan, source);
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Tensor tensor = source.open(plan.weights[i]);
    std::vector<float> want(static_cast<size_t>(tensor.cols())), got(want.size());
    for (int64_t row = 0; row < tensor.rows(); ++row) {
      read_row(tensor, row, want.data());
      weights->read_row(WeightId(i), row, got.data());
      EXPECT_EQ(got, want) << plan.weights[i].name << " row " << row;
    }
  }
}

TEST(CpuBackend, MemoryNeedsAreWhatIsAllocated) {
  const auto backend = make_cpu_backend({2, ""});
  const Plan plan = small_plan();
  const auto needs = backend->memory_needs(plan, small_options());
  const auto weights = backend->place(plan, small_weights());
  EXPECT_EQ(bytes_of(needs, MemoryKind::kWeights), weights->bytes());
  const uint64_t counted = backend->compile(plan, weights, small_options())->bytes();  // KV pages and slots
  const uint64_t needed = bytes_of(needs, MemoryKind::kKv) + SlotLayout(plan, small_options()).bytes();
  EXPECT_GE(counted, needed);
  EXPECT_LT(counted, needed + 4096);  // of memory that begins at a page
  EXPECT_GT(bytes_of(needs, MemoryKind::kActivations), SlotLayout(plan, small_options()).bytes());
}

TEST(CpuBackend, RefusesAnUnknownInstructionSetWithTheList) {
  const std::string what = what_of<Error>([] { make_cpu_backend({1, "sse9"}); });
  EXPECT_THAT(what, HasSubstr("\"sse9\""));
  for (const std::string& isa : cpu_isa_names()) EXPECT_THAT(what, HasSubstr(isa));
}

TEST(CpuBackend, RefusesOtherKvMemory) {
  const auto backend = make_cpu_backend({1, ""});
  const Plan plan = small_plan();
  const auto weights = backend->place(plan, small_weights());
  const auto refusal = [&](auto change) {
    CompileOptions options = small_options();
    change(options);
    return what_of<Error>([&] { backend->compile(plan, weights, options); });
  };
  for (const uint32_t size : {0u, 8u, 48u, 128u})
    EXPECT_EQ(refusal([&](CompileOptions& o) { o.kv.page_size = size; }),
              fmt::format("KV page size: expected a power of two from 16 to 64, got {}", size));
  for (const DType dtype : {DType::kBF16, DType::kQ4_0})
    EXPECT_EQ(refusal([&](CompileOptions& o) { o.kv.dtype = dtype; }),
              fmt::format("KV dtype: expected f16, f32 or q8_0, got {}", to_string(dtype)));
}

TEST(CpuBackend, RefusesWeightsThatAreNotThePlans) {
  const auto backend = make_cpu_backend({2, ""});
  const Plan plan = small_plan();
  const auto refusal = [&](auto change) {
    WeightSource source = small_weights();
    source.open = [open = source.open, change](const Weight& w) {
      Tensor tensor = open(w);
      if (w.name == "head") change(tensor);
      return tensor;
    };
    return what_of<Error>([&] { backend->place(plan, source); });
  };
  const std::string expected = "weight head: expected f32 [20, 16] in 1280 bytes, got ";
  EXPECT_EQ(refusal([](Tensor& t) { t.dtype = DType::kF16; }), expected + "f16 [20, 16] in 1280");
  EXPECT_EQ(refusal([](Tensor& t) { t.shape = {16, 20}; }), expected + "f32 [16, 20] in 1280");
  EXPECT_EQ(refusal([](Tensor& t) { t.bytes = t.bytes.first(1279); }), expected + "f32 [20, 16] in 1279");

  class Foreign final : public PlacedWeights {
    size_t bytes() const override { return 0; }
    void read_row(WeightId, int64_t, float*) const override {}
  };
  EXPECT_THAT(what_of<BugError>([&] { backend->compile(plan, std::make_shared<Foreign>(), small_options()); }),
              HasSubstr("weights were placed by another backend"));
}

TEST(CpuBackend, RefusesBatchesThatBreakTheRulesAndGoesOn) {
  const auto backend = make_cpu_backend({2, ""});
  const Plan plan = small_plan();
  CompileOptions options = small_options();
  options.max_logit_rows = 2;
  const auto program = backend->compile(plan, backend->place(plan, small_weights()), options);
  // Two sequences of 2 and 1 rows, the second behind 16 positions.
  const Batch good{{1, 2, 3}, {{0, 2, 0, 0, 1}, {2, 1, 16, 1, 2}}, {3, 0, 2}, {1, 2}};
  const std::vector<float> want = run(*program, good);
  ASSERT_EQ(want.size(), 2u * kVocab);
  const struct {
    const char* what;
    std::function<void(Batch&)> change;
  } kCases[] = {
      {"0 rows, at most 8", [](Batch& b) { b = {}; }},
      {"9 rows, at most 8", [](Batch& b) { b.tokens.resize(9); }},
      {"token -1 of 20", [](Batch& b) { b.tokens[1] = -1; }},
      {"token 20 of 20", [](Batch& b) { b.tokens[0] = kVocab; }},
      {"sequence starts at row 1, expected 2", [](Batch& b) { b.sequences[1].first_row = 1; }},
      {"sequence starts at row 2, expected 2", [](Batch& b) { b.sequences[1].n_rows = 0; }},
      {"positions up to 65 exceed the context 64", [](Batch& b) { b.sequences[1].first_position = 64; }},
      {"exceed the context 64", [](Batch& b) { b.sequences[1].first_position = UINT32_MAX; }},
      {"33 positions in 2 pages of 16", [](Batch& b) { b.sequences[1].first_position = 32; }},
      {"page table [2, +2) of 3", [](Batch& b) { b.sequences[1].first_page = 2; }},
      {"page table [4294967295, +2) of 3", [](Batch& b) { b.sequences[1].first_page = UINT32_MAX; }},
      {"sequences cover 2 of 3 rows", [](Batch& b) { b.sequences.pop_back(); }},
      {"page 4 of 4", [](Batch& b) { b.pages[2] = 4; }},
      {"3 logit rows, at most 2",
       [](Batch& b) {
         b.logit_rows = {0, 1, 2};
       }},
      {"logit row 3 of 3", [](Batch& b) { b.logit_rows[1] = 3; }},
      {"logit row 1 of 3",
       [](Batch& b) {
         b.logit_rows = {2, 1};
       }},
      {"logit row 1 of 3",
       [](Batch& b) {
         b.logit_rows = {1, 1};
       }},
  };
  for (const auto& c : kCases) {
    Batch bad = good;
    c.change(bad);
    EXPECT_THAT(what_of<BugError>([&] { program->run(bad); }), HasSubstr(c.what));
    ASSERT_EQ(run(*program, good), want);
  }
}

// Each program has KV pages and activations of its own; threads and weights are shared.
TEST(CpuBackend, ProgramsOnOneBackendDoNotMix) {
  auto backend = make_cpu_backend({2, ""});
  const Plan plan = small_plan();
  const auto weights = backend->place(plan, small_weights());
  const auto first = backend->compile(plan, weights, small_options());
  const auto second = backend->compile(plan, weights, small_options());
  const auto alone = backend->compile(plan, weights, small_options());
  backend.reset();  // programs keep what they need
  const int32_t tokens[2][4] = {{1, 2, 3, 4}, {9, 8, 7, 6}};
  std::vector<float> mixed[2], want[2];
  for (uint32_t i = 0; i < 4; ++i) {
    mixed[0] = run(*first, one_row(tokens[0][i], i));
    mixed[1] = run(*second, one_row(tokens[1][i], i));
  }
  for (size_t s = 0; s < 2; ++s) {
    for (uint32_t i = 0; i < 4; ++i) want[s] = run(*alone, one_row(tokens[s][i], i));
    EXPECT_EQ(mixed[s], want[s]);
  }
  EXPECT_NE(want[0], want[1]);
  EXPECT_GE(first->bytes(), 4 * kv_page_bytes(plan, small_options().kv));
}

}  // namespace
}  // namespace llorch
