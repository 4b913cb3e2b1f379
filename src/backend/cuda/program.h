// A plan compiled for a CUDA device: a list of stages whose kernels go into one stream.
//
// A stage is one step, or a Linear together with the RMSNorm that feeds it and the gated activation of what it makes,
// or RopeAppend with its Attention. Decodes of few sequences are recorded, all stages as one graph for each number of
// rows; what differs between two of them is the batch alone (batch_block.h).
#pragma once

#include <map>
#include <optional>
#include <utility>

#include "backend/cuda/batch_block.h"
#include "backend/cuda/sampling_block.h"
#include "backend/cuda/scratch.h"
#include "backend/cuda/slots.h"
#include "backend/cuda/tensor_cores.h"
#include "backend/cuda/weights.h"

namespace llorch::cuda {

// What a program knows of the device that it runs on.
struct Device {
  int index = 0;
  int n_multiprocessors = 1;
  size_t cache_bytes = 0;  // of the second level
  bool overlaps_kernels = false;
  SharedMemory shared;
  bool has_wgmma = false;
  std::string text;  // for messages
};

class CudaProgram final : public Program {
 public:
  CudaProgram(const Plan& plan, std::shared_ptr<const CudaWeights> weights, const CompileOptions& options,
              Device device);
  ~CudaProgram() override;

  std::span<const float> run(const Batch& batch) override;
  uint32_t max_in_flight() const override { return 2; }
  void start(const Batch& batch, std::span<const RowSampling> rows) override;
  std::span<const SampledRow> finish() override;
  std::span<const float> trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) override;
  size_t bytes() const override;
  const Plan& plan() const override { return plan_; }
  const CompileOptions& options() const override { return options_; }
  const PlacedWeights& weights() const override { return *weights_; }

 private:
  struct Stage {
    size_t step = 0;
    bool gathered = false;        // sees only the rows that want logits
    const Op* prepare = nullptr;  // fused: RmsNorm that makes the Linear's input; RopeAppend before Attention
    const Op* then = nullptr;     // fused: GatedAct of the Linear's output
    bool packs = false;           // a Linear of quantized weights reads its output next
    bool shown = false;
    // Of two neighbours for the tensor cores:
    TensorCores::Product halves_for;  // op not null: of the next stage, which alone reads what Attention or a Linear
                                      // with a GatedAct makes here
    const Op* halves_from = nullptr;  // of that next one: the Attention or the GatedAct
    bool feeds_norm = false;          // a Linear whose output the RmsNorm of the next stage, a Linear, reads first
  };

  std::vector<Stage> make_stages(const StepSet& shown) const;
  void join_on_tensor_cores(Stage& first, Stage& second) const;
  bool is_attention_on_tensor_cores() const;
  void begin_alone(const Batch& batch);
  void begin(const Batch& batch, uint32_t half);
  void walk(const std::vector<Stage>& stages, const StepVisitor* visit);
  void execute(bool samples);
  void enqueue_all(bool samples);
  void replay(const Graph& graph);
  template <typename Wait>
  void receive(Wait wait);
  std::span<const float> hand_out();
  [[noreturn]] void find_failure();
  void show(const Stage& stage, const StepVisitor& visit);

  // One overload for each verb: puts its kernels into the stream.
  void enqueue(const Stage& stage, const Embed& op);
  void enqueue(const Stage& stage, const RmsNorm& op);
  void enqueue(const Stage& stage, const Linear& op);
  void enqueue(const Stage& stage, const RopeAppend& op);
  void enqueue(const Stage& stage, const Attention& op);
  void enqueue(const Stage& stage, const GatedAct& op);
  void enqueue(const Stage& stage, const GatherRows& op);

  InputRows input_of(const Op& op);
  bool is_on_tensor_cores(const Stage& stage, const Linear& op) const;
  void enqueue_on_tensor_cores(const Stage& stage, const Linear& op);
  bool feeds(const Op& op, const Op& next) const;
  bool gates(const Op& op, const Op& next) const;
  bool reads_packed(size_t step, SlotId slot) const;
  PackedRows pack_for(SlotId slot);
  KvView kv_view(uint32_t layer);
  RopeArgs rope_args(const RopeAppend& op);
  AttentionArgs attention_args(const Attention& op);
  MemoryAhead weights_behind(const Stage& stage) const;
  int32_t attention_splits(uint32_t rows, uint32_t tiles) const;
  uint32_t rows_of(const Stage& stage) const { return stage.gathered ? batch_.logit_rows() : batch_.rows(); }
  uint32_t width(SlotId id) const { return plan_.slot(id).width; }
  void allocate_scratch();

  const Plan plan_;
  const CompileOptions options_;
  const std::shared_ptr<const CudaWeights> weights_;
  const Device device_;
  const Stream stream_;
  const KernelStream kernels_;  // stream_
  const bool few_weights_;
  const uint32_t heads_per_tile_;
  DeviceSlots slots_;
  BatchBlock batch_;
  SamplingBlock sampling_;
  DeviceArray<std::byte> kv_;  // [layer][page], see KvView
  DeviceArray<float> cos_, sin_;
  PinnedArray<float> logits_;                // [max logit rows, vocab]
  std::optional<TensorCores> tensor_cores_;  // of numeric mode fast
  bool is_queued_ = false;                   // the stream may hold work that nobody will wait for
  uint32_t n_started_ = 0, n_finished_ = 0;  // steps of start(); the last bit of a step's number is its half
  Event ended_[2];                           // of the halves' steps
  const std::vector<Stage> stages_;          // of run()

  // Packed rows of a stage's input, and those that it makes for the next one; and sums of attention that several blocks
  // share.
  struct Packed {
    DeviceArray<int16_t> q;
    DeviceArray<float> d;
    DeviceArray<int32_t> sums;
    PackedRows view() { return {q.data(), d.data(), sums.data()}; }
  };
  Packed packed_[ScratchSizes::kPacked];
  std::optional<GatherRows> left_out_;  // of this step: who reads its output reads its input
  size_t packed_last_ = 0;              // which of them was made last
  std::optional<SlotId> packed_slot_;   // and of which slot
  DeviceArray<float> attention_partial_;
  DeviceArray<unsigned> attention_arrivals_;
  uint32_t max_split_tiles_ = 0;  // of attention, for which there is room

  // By rows of a decode, and whether it samples; empty: it was seen once.
  std::map<std::pair<uint32_t, bool>, std::optional<Graph>> graphs_;
};

}  // namespace llorch::cuda
