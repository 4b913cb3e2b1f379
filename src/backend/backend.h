// The seam between a plan and a device: the only virtual classes of the compute side.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "plan/plan.h"
#include "tensor/tensor.h"

namespace llorch {

// Paged KV memory of one program, for all layers. Page p holds page_size consecutive positions of one sequence, K and
// V, all KV heads, all layers.
struct KvShape {
  uint32_t n_pages = 0;
  uint32_t page_size = 64;    // positions; a power of two, 16..64
  DType dtype = DType::kF16;  // f16 or f32

  static constexpr uint32_t kMaxPageSize = 64;
};

// Throws Error if page_size or dtype is not one of those stated above.
void check_kv(const KvShape& kv);

// Bytes of one page: 2 (K, V) * layers * kv heads * head_dim * page_size * element.
size_t kv_page_bytes(const Plan& plan, const KvShape& kv);

// One flat list of rows for all sequences. Decode is a sequence with one row, prefill has many. The rows of a sequence
// are contiguous and ascend in position by one. Nothing else varies between runs of a program.
struct Batch {
  struct Sequence {
    uint32_t first_row = 0;
    uint32_t n_rows = 0;
    uint32_t first_position = 0;  // absolute position of first_row; all positions before it are already in its pages
    uint32_t first_page = 0;      // into pages; page j of the sequence holds positions [j * page_size, ...)
    uint32_t n_pages = 0;         // enough for first_position + n_rows
  };
  std::vector<int32_t> tokens;       // [rows]
  std::vector<Sequence> sequences;   // cover the rows in order
  std::vector<uint32_t> pages;       // all page tables, one after another
  std::vector<uint32_t> logit_rows;  // rows that want logits, ascending

  uint32_t rows() const { return static_cast<uint32_t>(tokens.size()); }
};

// Where weights come from at load. open() returns a view that stays valid until close() of the same tensor; a backend
// opens and closes weights one after another in plan order, so that a source may map or make them one at a time.
struct WeightSource {
  std::function<Tensor(const Weight&)> open;
  std::function<void(const Tensor&)> close;
};

// Weights on a device, in the backend's own layout. Shared by the programs compiled on them.
class PlacedWeights {
 public:
  virtual ~PlacedWeights() = default;
  virtual size_t bytes() const = 0;
};

struct CompileOptions {
  KvShape kv;
  uint32_t max_rows = 512;        // of one batch
  uint32_t max_logit_rows = 64;   // of one batch
  std::vector<std::string> taps;  // names of steps whose output is kept by run()
  bool poison = false;            // tests: NaN in activations and KV pages, sentinels around slots, checked by run()
};

// Throws BugError naming the first inconsistency (a page out of range, a position beyond the context, a token beyond
// the vocabulary, rows not covered, ...). Every program calls it first.
void check_batch(const Batch& batch, const Plan& plan, const CompileOptions& options);

struct BackendInfo {
  std::string name;    // "cpu", "reference", ...
  std::string device;  // "AMD EPYC 9654 (avx512vnni, 2 threads)"
  size_t memory_bytes = 0;
};

// Where a step failed: its address, shapes and device, then the cause.
struct StepFailure {
  std::string step, verb, shapes, device, cause;
};

// A failure inside Program::run(). what() carries all of the failure's fields.
class StepError : public Error {
 public:
  explicit StepError(StepFailure failure);
  const StepFailure& failure() const { return failure_; }

 private:
  StepFailure failure_;
};

// A compiled plan with its KV memory and activations. Not thread-safe: one caller at a time.
class Program {
 public:
  virtual ~Program() = default;

  // Runs every step for every row. Returns logits [batch.logit_rows, vocab], valid until the next run.
  virtual std::span<const float> run(const Batch& batch) = 0;

  // Output of a tapped step in the last run: [rows, width], or [logit rows, width] after GatherRows.
  virtual std::span<const float> tap(std::string_view step) const = 0;

  // Bytes of KV pages and activations.
  virtual size_t bytes() const = 0;

  virtual const Plan& plan() const = 0;
  virtual const CompileOptions& options() const = 0;
};

// What a device can do at best, measured now. Benches state their figures as a share of it.
struct Roof {
  double read_bytes_per_s = 0.0;  // the best of several read loops over memory far larger than the caches
  double flops_per_s = 0.0;       // float32 multiply-adds from registers, counted as two operations
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo info() const = 0;
  virtual Roof measure_roof() = 0;  // takes about a second
  virtual std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) = 0;
  virtual std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                           const CompileOptions& options) = 0;
};

}  // namespace llorch
