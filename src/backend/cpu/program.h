// A plan compiled for the CPU: a list of stages that all threads walk together.
//
// A stage is one step, or a Linear together with the RMSNorm or gated activation that feeds it: their result goes
// straight into the packed form that the kernels read, and is stored nowhere else. A stage ends when its tasks are
// done.
#pragma once

#include <algorithm>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kv_cache.h"
#include "backend/cpu/layout.h"
#include "backend/cpu/thread_pool.h"
#include "backend/slots.h"

namespace llorch::cpu {

// Matrices interleaved, vectors (norm weights, biases) widened to float.
class CpuWeights final : public PlacedWeights {
 public:
  // All threads of the pool interleave one tensor after another; the source may drop each when it is done.
  CpuWeights(const Plan& plan, const WeightSource& source, ThreadPool& pool);

  size_t bytes() const override;
  void read_row(WeightId id, int64_t row, float* out) const override;
  const InterleavedMatrix& matrix(WeightId id) const { return *matrices_[static_cast<size_t>(id)]; }
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].data(); }

 private:
  // Of all matrices, one after another: of buffers of their own those below 2 MB, all scales among them, would get no
  // huge pages (two Sapphire Rapids cores, q4_0: 39 to 44 tok/s).
  Buffer memory_;
  std::vector<std::unique_ptr<InterleavedMatrix>> matrices_;  // [weights]; null for vectors
  std::vector<std::vector<float>> vectors_;                   // [weights]; empty for matrices
};

// Bytes that a weight takes: of a matrix, in the memory that all share.
size_t placed_bytes(const Weight& weight);

// Widest input of a Linear, and what that many rows take in packed form.
uint32_t widest_input(const Plan& plan);
size_t packed_bytes(uint32_t rows, uint32_t widest);

// What CpuWeights and CpuProgram allocate.
std::vector<MemoryNeed> memory_needs(const Plan& plan, const CompileOptions& options, int n_threads);

class CpuProgram final : public Program {
 public:
  CpuProgram(const Plan& plan, std::shared_ptr<const CpuWeights> weights, const CompileOptions& options,
             std::shared_ptr<ThreadPool> pool, const Kernels& kernels, std::string device);

  std::span<const float> run(const Batch& batch) override { return walk(batch, stages_, {}); }
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override {
    return walk(batch, make_stages(steps), visit);
  }
  size_t bytes() const override { return slots_.bytes() + kv_.bytes(); }
  const Plan& plan() const override { return plan_; }
  const CompileOptions& options() const override { return options_; }
  const PlacedWeights& weights() const override { return *weights_; }

 private:
  // kPack: rows into the form that a Linear's kernels read. kCompute: the step itself. kShow: its output to the
  // visitor of a trace.
  enum class Phase : uint8_t { kPack, kCompute, kShow };
  struct Stage {
    size_t step;
    Phase phase = Phase::kCompute;
    bool gathered = false;        // sees only the rows that want logits
    const Op* prepare = nullptr;  // fused RmsNorm or GatedAct that makes the Linear's input
  };
  struct Tile {  // rows that one call of a linear kernel takes together
    uint32_t first_row;
    int n_rows;
  };
  struct AttentionTask {
    uint32_t sequence, first_row, n_rows, kv_head, first_head, n_heads;  // heads: inside the KV head's group
  };
  // Activation memory of one thread.
  struct Scratch {
    std::vector<float> rows;       // [kMaxTileRows, widest slot]: a tile's rows before packing
    Buffer packed;                 // packed rows of a batch of one row
    std::vector<float> attention;  // [kMaxQueries, head_dim]
    size_t packed_stage = 0;       // the stage of this run whose input `packed` holds; stage 0 packs nothing
  };

  std::vector<Stage> make_stages(const StepSet& shown) const;
  std::span<const float> walk(const Batch& batch, const std::vector<Stage>& stages, const StepVisitor& visit);
  void make_attention_tasks();
  void make_tiles();
  uint32_t count_tasks(const Stage& stage) const;
  void show(const Stage& stage);
  void run_task(const Stage& stage, size_t index, uint32_t task, int thread);

  // One overload for each verb: one task of its stage.
  void step(const Stage& stage, const Embed& op, uint32_t task, int thread);
  void step(const Stage& stage, const RmsNorm& op, uint32_t task, int thread);
  void step(const Stage& stage, const Linear& op, uint32_t task, int thread);
  void step(const Stage& stage, const RopeAppend& op, uint32_t task, int thread);
  void step(const Stage& stage, const Attention& op, uint32_t task, int thread);
  void step(const Stage& stage, const GatedAct& op, uint32_t task, int thread);
  void step(const Stage& stage, const GatherRows& op, uint32_t task, int thread);

  PackedRows packed_rows(Buffer& buffer, uint32_t rows) const;
  bool packs_privately(const Stage& stage) const;
  bool uses(const Linear& op, bool quantized) const;
  uint32_t count_groups(const Linear& op) const;
  uint32_t groups_per_task(const Linear& op, uint32_t rows) const;
  void pack_tile(const Stage& stage, const Linear& op, bool quantized, const Tile& tile, PackedRows out,
                 Scratch& scratch);
  void prepare_row(const Op& op, uint32_t row, float* y) const;

  uint32_t rows_of(const Stage& stage) const { return stage.gathered ? n_logit_rows_ : n_rows_; }
  uint32_t packed_capacity() const { return std::max(options_.max_rows, options_.max_logit_rows); }
  uint32_t width(SlotId id) const { return plan_.slot(id).width; }
  float* row(SlotId id, uint32_t r) { return slots_.data(id) + size_t{r} * width(id); }
  const float* row(SlotId id, uint32_t r) const { return slots_.data(id) + size_t{r} * width(id); }

  const Plan plan_;
  const CompileOptions options_;
  const std::shared_ptr<const CpuWeights> weights_;
  const std::shared_ptr<ThreadPool> pool_;  // shared with the backend and its other programs
  const Kernels& kernels_;
  Slots slots_;
  KvCache kv_;
  const std::string device_;         // for messages
  const std::vector<Stage> stages_;  // of run()
  const uint32_t widest_;            // input of a Linear
  Buffer packed_;                    // packed rows that all threads share
  std::vector<Scratch> scratch_;

  // Of the current run.
  const Batch* batch_ = nullptr;
  const StepVisitor* visit_ = nullptr;
  uint32_t n_rows_ = 0, n_logit_rows_ = 0;
  std::vector<uint32_t> task_counts_;  // [stages]
  std::vector<uint32_t> positions_;    // [rows]
  std::vector<uint32_t> row_sequence_;
  std::vector<Tile> tiles_[2][2];  // [gathered][quantized]
  std::vector<AttentionTask> attention_tasks_;
};

}  // namespace llorch::cpu
