// The seam between a plan and a device: the only virtual classes of the compute side.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/memory.h"
#include "base/error.h"
#include "plan/plan.h"
#include "sampling/row.h"
#include "sampling/sampler.h"
#include "tensor/tensor.h"

namespace llorch {

// Paged KV memory of one program, for all layers. Page p holds page_size consecutive positions of one sequence, K and
// V, all KV heads, all layers.
struct KvShape {
  uint32_t n_pages = 0;
  uint32_t page_size = 64;    // positions; a power of two, 16..64
  DType dtype = DType::kF16;  // f16, f32 or q8_0

  static constexpr uint32_t kMaxPageSize = 64;
};

// Throws Error if page_size or dtype is not one of those stated above.
void check_kv(const KvShape& kv);

// Elements of a head that share a scale in q8_0; the last of a head may be fewer.
inline constexpr uint32_t kKvBlock = 32;

// Bytes of one head's key, or value, at one position: of q8_0 a byte an element and a binary16 for each block.
size_t kv_head_bytes(uint32_t head_dim, DType dtype);

// Bytes of one page: 2 (K, V) * layers * kv heads * page_size * kv_head_bytes().
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
  std::vector<int32_t> tokens;       // [rows]; for start() also token_of_row_in_flight()
  std::vector<Sequence> sequences;   // cover the rows in order
  std::vector<uint32_t> pages;       // all page tables, one after another
  std::vector<uint32_t> logit_rows;  // rows that want logits, ascending

  uint32_t rows() const { return static_cast<uint32_t>(tokens.size()); }
};

// Where weights come from at load. open() returns a view that stays valid until close() of the same tensor; a backend
// opens weights in plan order and closes them in that order, both on the thread that loads, and has at most max_open
// open at once: a source may make them one at a time.
struct WeightSource {
  std::function<Tensor(const Weight&)> open;
  std::function<void(const Tensor&)> close;
  size_t max_open = 1;  // more let a backend read on where one weight ends
};

// Weights on a device, in the backend's own layout. Shared by the programs compiled on them.
class PlacedWeights {
 public:
  virtual ~PlacedWeights() = default;
  virtual size_t bytes() const = 0;

  // One row of a weight as it lies on the device, dequantized: out [columns]. A vector is row 0. For diagnosis: slow.
  virtual void read_row(WeightId id, int64_t row, float* out) const = 0;
};

// In which arithmetic a program computes (docs/numerics.md).
enum class Numerics : uint8_t {
  kExact,  // the reference's bits
  kFast,   // batches of few rows are exact; many rows may take another order of sums and 16-bit inputs, inside bounds
};

struct CompileOptions {
  KvShape kv;
  Numerics numerics = Numerics::kExact;
  uint32_t max_rows = 512;       // of one batch
  uint32_t max_logit_rows = 64;  // of one batch
  bool poison = false;           // tests: NaN in activations and KV pages, sentinels around slots, checked by run()
};

// Throws BugError naming the first inconsistency (a page out of range, a position beyond the context, a token beyond
// the vocabulary, rows not covered, ...). Every program calls it first. n_in_flight: rows of logits of the step in
// flight, whose tokens the batch may have.
void check_batch(const Batch& batch, const Plan& plan, const CompileOptions& options, size_t n_in_flight = 0);

struct BackendInfo {
  std::string name;    // "cpu", "reference", ...
  std::string device;  // "AMD EPYC 9654 (avx512vnni, 2 threads)"
};

// Where a step failed: its address, shapes and device.
struct StepFailure {
  std::string step, verb, shapes, device;
  std::string dtype = "f32";  // of the weights that it reads; f32 if it reads none
};

// rows: of the batch, at this step.
StepFailure describe_step(const Plan& plan, size_t step, uint32_t rows, const std::string& device);

// A failure inside a Program's step, with its cause nested (cause_chain() in base/error.h). The code is the cause's,
// INFERENCE_FAILED of an Error without one; a backend that has lost its device throws a CodedError of DEVICE_LOST.
// what() is one sentence of the failure's fields.
class StepError : public CodedError {
 public:
  explicit StepError(StepFailure failure, ErrorCode code = ErrorCode::kInferenceFailed);
  const StepFailure& failure() const { return failure_; }

 private:
  StepFailure failure_;
};

// For backends, inside a catch block: throws a StepError of this step whose cause is the exception that is being
// handled (which, if it is a StepError, is thrown as it is). rows: of the batch, at this step.
[[noreturn]] void rethrow_as_step_error(const Plan& plan, size_t step, uint32_t rows, const std::string& device);

// Steps of a plan, by index: which ones a trace shows.
using StepSet = std::vector<bool>;

// Sees the output of a step: [rows, width], or [logit rows, width] after GatherRows; valid during the call. Called in
// plan order, one call at a time, on any thread.
using StepVisitor = std::function<void(size_t step, std::span<const float> output)>;

// A compiled plan with its KV memory and activations. Not thread-safe: one caller at a time.
class Program {
 public:
  virtual ~Program() = default;

  // Runs every step for every row; not while a step of start() is in flight. Returns logits [batch.logit_rows, vocab],
  // valid until the next run. Throws StepError when a step fails.
  virtual std::span<const float> run(const Batch& batch) = 0;

  // run(), after which each of its rows of logits is checked, hashed and sampled: rows[i] says how for
  // batch.logit_rows[i]. What finish() returns is valid until the next start(). Between the two the caller has time of
  // its own while a device computes; batch, rows and their histories stay as they are, and nothing else is called but
  // start(), for steps that follow, of which max_in_flight() may be started and not finished; they finish in order. A
  // start() that throws has no finish(). Without overrides all is done in finish(), on the host, to the logits that
  // run() returns; a device overrides both with the same bits, so that no logits travel.
  virtual uint32_t max_in_flight() const { return 1; }  // 1 or 2
  // Decodes of up to so many rows are worth a second step in flight. Those of more take so long that the host's time
  // between them does not count (32 and 256 clients of an H100: no token a second more), and who arrives waits for
  // both.
  static constexpr uint32_t kMaxRowsAhead = 8;
  virtual void start(const Batch& batch, std::span<const RowSampling> rows);
  virtual std::span<const SampledRow> finish();

  std::span<const SampledRow> sample(const Batch& batch, std::span<const RowSampling> rows) {
    start(batch, rows);
    return finish();
  }

  // run(), with the outputs of some steps shown as they are made; a step without rows is not shown. Gives the bits of
  // run(), but fuses no step into its neighbour whose output is asked for. Running the last batch again, this way or
  // the other, is harmless: it appends the same keys and values at the same positions.
  virtual std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) = 0;

  // Bytes of KV pages and activations.
  virtual size_t bytes() const = 0;

  virtual const PlacedWeights& weights() const = 0;
  virtual const Plan& plan() const = 0;
  virtual const CompileOptions& options() const = 0;

 private:
  struct Started {
    const Batch* batch;
    std::span<const RowSampling> rows;
  };
  std::deque<Started> started_;
  std::unique_ptr<Sampler> sampler_;  // of the host; made when it is first needed
  std::vector<SampledRow> sampled_;
};

// What a device can do at best, measured now. Benches state their figures as a share of it.
struct Roof {
  double read_bytes_per_s = 0.0;  // the best of several read loops over memory far larger than the caches
  double flops_per_s = 0.0;       // float32 multiply-adds from registers, counted as two operations
  // Products of 16-bit matrices on tensor cores, from memory inside the multiprocessors, sums in float32; counted the
  // same. 0: the device has none.
  double matrix_flops_per_s = 0.0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo info() const = 0;
  virtual Roof measure_roof() = 0;  // takes about a second
  // The device's own memory; nothing: it uses the system's.
  virtual std::optional<DeviceMemory> memory() const { return std::nullopt; }
  // What place() and compile() will allocate. Of the plan's rotation table only the size counts.
  virtual std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options) const = 0;
  // Why it cannot compute in Numerics::kFast, in a sentence; nothing: it can.
  virtual std::optional<std::string> why_not_fast() const { return "it has exact only"; }
  virtual std::shared_ptr<const PlacedWeights> place(const Plan& plan, const WeightSource& source) = 0;
  virtual std::unique_ptr<Program> compile(const Plan& plan, std::shared_ptr<const PlacedWeights> weights,
                                           const CompileOptions& options) = 0;
};

// Throws Error if a backend is asked for what it has not, with its reason.
void check_numerics(const Backend& backend, Numerics numerics);

}  // namespace llorch
