#include "backend/cuda/program.h"

#include <algorithm>
#include <bit>

#include "backend/slots.h"
#include "backend/step_faults.h"

namespace llorch::cuda {
namespace {

// Decodes of more rows are launched kernel by kernel: their kernels take longer than a launch.
constexpr uint32_t kMaxGraphRows = 64;

// Bytes of a layer's quantized weights up to which kernels need not begin as early as they can: on an H100 decodes of
// 30 MB a layer (Q5_0, TinyLlama's shape) gain by it, of 36 MB (Q6_K) they lose.
constexpr size_t kFewWeights = size_t{32} << 20;

bool has_few_weights(const Plan& plan) {
  size_t bytes = 0;
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || linear->y == plan.logits()) continue;
    for (const WeightId id : linear->weights) {
      const Weight& w = plan.weight(id);
      if (!is_quantized(w.dtype)) return false;
      bytes += static_cast<size_t>(w.shape[0]) * row_bytes(w.dtype, w.shape[1]);
    }
  }
  return bytes <= kFewWeights * plan.n_layers;
}

}  // namespace

CudaProgram::CudaProgram(const Plan& plan, std::shared_ptr<const CudaWeights> weights, const CompileOptions& options,
                         Device device)
    : plan_(plan),
      options_(options),
      weights_(std::move(weights)),
      device_(std::move(device)),
      kernels_{stream_.get(), device_.overlaps_kernels, device_.n_multiprocessors, device_.shared, device_.has_wgmma},
      few_weights_(has_few_weights(plan_)),
      heads_per_tile_(heads_per_tile(plan_)),
      slots_(plan_, options_),
      batch_(plan_, options_, std::max<uint32_t>(1, kMaxQueries / heads_per_tile_), kTensorQueries / heads_per_tile_),
      sampling_(plan_, options_),
      kv_(kKvMemory, options_.kv.n_pages * kv_page_bytes(plan_, options_.kv)),
      cos_(kActivationMemory, plan_.rope.cos.size()),
      sin_(kActivationMemory, plan_.rope.sin.size()),
      logits_(kActivationMemory, size_t{options_.max_logit_rows} * width(plan_.logits())),
      stages_(make_stages(StepSet(plan_.steps.size()))) {
  const uint32_t head_dim = plan_.heads.head_dim;
  if (plan_.n_layers > 0 && (head_dim % kHeadDimStep != 0 || head_dim > kMaxHeadDim))
    fail("head size {}: the cuda backend takes multiples of {} up to {}", head_dim, kHeadDimStep, kMaxHeadDim);
  allocate_scratch();
  if (options_.numerics == Numerics::kFast) tensor_cores_.emplace(plan_, *weights_, options_, stream_);
  stream_.to_device(cos_.data(), plan_.rope.cos.data(), cos_.size());
  stream_.to_device(sin_.data(), plan_.rope.sin.data(), sin_.size());
  if (options_.poison) stream_.fill_bytes(kv_.data(), 0xff, kv_.bytes());  // NaN in all KV types
  stream_.synchronize();
}

CudaProgram::~CudaProgram() { cudaStreamSynchronize(stream_.get()); }  // steps that nobody has finished

void CudaProgram::allocate_scratch() {
  const ScratchSizes sizes(plan_, options_);
  for (Packed& p : packed_) {
    p.q = DeviceArray<int16_t>(kActivationMemory, sizes.packed);
    p.d = DeviceArray<float>(kActivationMemory, sizes.packed_blocks);
    p.sums = DeviceArray<int32_t>(kActivationMemory, sizes.packed_blocks);
  }
  attention_partial_ = DeviceArray<float>(kActivationMemory, sizes.attention_partial);
  attention_arrivals_ = DeviceArray<unsigned>(kActivationMemory, sizes.attention_arrivals);
  max_split_tiles_ = sizes.max_split_tiles;
  stream_.fill_bytes(attention_arrivals_.data(), 0, attention_arrivals_.bytes());
}

// RopeAppend joins the Attention behind it, RmsNorm or GatedAct the Linear behind it, whose enqueue() decides which
// kernel makes it. Blocks read their input at different times, so the step must not overwrite it.
bool CudaProgram::feeds(const Op& op, const Op& next) const {
  if (const auto* rope = std::get_if<RopeAppend>(&op)) {
    const auto* attention = std::get_if<Attention>(&next);
    return attention != nullptr && attention->qkv == rope->qkv && attention->layer == rope->layer;
  }
  if (!std::holds_alternative<RmsNorm>(op) && !std::holds_alternative<GatedAct>(op)) return false;
  const auto* linear = std::get_if<Linear>(&next);
  return linear != nullptr && linear->x == output_slot(op) && linear->y != *input_slot(op);
}

// GatedAct joins the Linear before it, if that is a gate and an up of one type and shape.
bool CudaProgram::gates(const Op& op, const Op& next) const {
  const auto* linear = std::get_if<Linear>(&op);
  const auto* act = std::get_if<GatedAct>(&next);
  if (linear == nullptr || act == nullptr || *input_slot(next) != linear->y || act->y == linear->x) return false;
  if (linear->weights.size() != 2 || linear->accumulate) return false;
  const Weight &gate = plan_.weight(linear->weights[0]), &up = plan_.weight(linear->weights[1]);
  return gate.dtype == up.dtype && gate.shape == up.shape;
}

bool CudaProgram::reads_packed(size_t step, SlotId slot) const {
  if (step >= plan_.steps.size()) return false;
  const auto* linear = std::get_if<Linear>(&plan_.steps[step].op);
  return linear != nullptr && linear->x == slot && uses(plan_, *linear, true);
}

// Neighbours join where nobody else reads what is between them and it is not shown.
std::vector<CudaProgram::Stage> CudaProgram::make_stages(const StepSet& shown) const {
  std::vector<Stage> stages;
  const std::vector<Step>& steps = plan_.steps;
  const std::vector<bool> gathered = gathered_steps(plan_);
  const auto is_between = [&](size_t i) {  // steps i and i + 1
    return i + 1 < steps.size() && !shown[i] && !reads_later(plan_, i + 2, output_slot(steps[i].op));
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    Stage stage;
    if (is_between(i) && feeds(steps[i].op, steps[i + 1].op)) stage.prepare = &steps[i++].op;
    stage.step = i;
    stage.gathered = gathered[i];
    stage.shown = shown[i];
    if (is_between(i) && !shown[i + 1] && gates(steps[i].op, steps[i + 1].op)) stage.then = &steps[++i].op;
    stage.packs = reads_packed(i + 1, output_slot(steps[i].op));
    stages.push_back(stage);
  }
  for (size_t i = stages.size(); i-- > 1;)
    join_on_tensor_cores(stages[i - 1], stages[i]);  // each knows what its next one does
  return stages;
}

// What two stages of as many rows pass on where the tensor cores take both: attention its rows in 16 bits; gate and up
// those of their activation; a product that accumulates shares of sums, to the norm of the next.
void CudaProgram::join_on_tensor_cores(Stage& first, Stage& second) const {
  const auto* next = std::get_if<Linear>(&plan_.steps[second.step].op);
  if (next == nullptr || first.shown || first.gathered != second.gathered || !is_for_tensor_cores(plan_, *next)) return;
  const auto gives_halves = [&](const Op& made) {
    const SlotId slot = output_slot(made);
    if (second.prepare != nullptr || next->x != slot || next->y == slot || reads_later(plan_, second.step + 1, slot))
      return;
    first.halves_for = {next, second.feeds_norm};
    second.halves_from = &made;
  };
  const Op& op = plan_.steps[first.step].op;
  if (std::holds_alternative<Attention>(op) && is_attention_on_tensor_cores() && device_.has_wgmma &&
      width(output_slot(op)) % kWholeHalfUnits == 0)
    gives_halves(op);
  const auto* linear = std::get_if<Linear>(&op);
  if (linear == nullptr || !is_for_tensor_cores(plan_, *linear)) return;
  if (second.prepare != nullptr)
    first.feeds_norm = std::holds_alternative<RmsNorm>(*second.prepare) && input_slot(*second.prepare) == linear->y;
  if (first.then != nullptr) gives_halves(*first.then);
}

bool CudaProgram::is_attention_on_tensor_cores() const {
  return options_.numerics == Numerics::kFast &&
         attention_has_tensor_cores(static_cast<int32_t>(plan_.heads.head_dim), options_.kv.dtype);
}

size_t CudaProgram::bytes() const {
  size_t packed = 0;
  for (const Packed& p : packed_) packed += p.q.bytes() + p.d.bytes() + p.sums.bytes();
  return slots_.bytes() + batch_.bytes() + SamplingBlock::bytes(plan_, options_) + kv_.bytes() + cos_.bytes() +
         sin_.bytes() + packed + attention_partial_.bytes() + attention_arrivals_.bytes() +
         (tensor_cores_ ? tensor_cores_->bytes() : 0);
}

std::span<const float> CudaProgram::run(const Batch& batch) {
  begin_alone(batch);
  execute(false);
  return hand_out();
}

void CudaProgram::start(const Batch& batch, std::span<const RowSampling> rows) {
  LLORCH_CHECK(n_started_ - n_finished_ < max_in_flight(), "{} steps are in flight", n_started_ - n_finished_);
  LLORCH_CHECK(rows.size() == batch.logit_rows.size(), "{} samplings for {} rows", rows.size(),
               batch.logit_rows.size());
  const uint32_t half = n_started_ % 2;
  begin(batch, half);
  sampling_.fill(rows, half);
  sampling_.send(stream_);
  execute(true);
  ended_[half].record(stream_);
  is_queued_ = false;
  ++n_started_;
}

std::span<const SampledRow> CudaProgram::finish() {
  LLORCH_CHECK(n_finished_ < n_started_, "nothing was started");
  const uint32_t half = n_finished_++ % 2;
  receive([&] { ended_[half].wait(); });
  return sampling_.results(half);
}

void CudaProgram::execute(bool samples) {
  const bool is_recorded = batch_.is_decode() && batch_.rows() <= kMaxGraphRows;
  const auto [graph, is_new] =
      is_recorded ? graphs_.try_emplace({batch_.rows(), samples}) : std::pair{graphs_.end(), true};
  // The first time everything is launched by itself, so that no kernel is loaded while a graph is recorded.
  if (is_new) return enqueue_all(samples);
  if (!graph->second) graph->second = Graph::record(stream_, [&] { enqueue_all(samples); });
  replay(*graph->second);
}

void CudaProgram::enqueue_all(bool samples) {
  walk(stages_, nullptr);
  if (!samples || batch_.logit_rows() == 0) return;
  llorch::cuda::sample(kernels_, sampling_.args(slots_.data(plan_.logits()), batch_.view().half),
                       static_cast<int32_t>(batch_.logit_rows()));
}

std::span<const float> CudaProgram::trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) {
  begin_alone(batch);
  walk(make_stages(steps), &visit);
  return hand_out();
}

void CudaProgram::begin_alone(const Batch& batch) {
  LLORCH_CHECK(n_finished_ == n_started_, "{} steps are in flight", n_started_ - n_finished_);
  begin(batch, 0);
}

void CudaProgram::begin(const Batch& batch, uint32_t half) {
  const bool is_behind = n_finished_ < n_started_;
  check_batch(batch, plan_, options_, is_behind ? sampling_.results(1 - half).size() : 0);
  use_device(device_.index);
  if (std::exchange(is_queued_, true)) stream_.synchronize();  // what a batch left that failed in the middle
  batch_.fill(batch, half);
  if (options_.poison) slots_.poison(stream_);
  batch_.send(stream_);
}

void CudaProgram::walk(const std::vector<Stage>& stages, const StepVisitor* visit) {
  if (tensor_cores_) tensor_cores_->begin();
  packed_slot_.reset();
  left_out_.reset();
  for (const Stage& stage : stages) {
    try {
      inject_faults(plan_.steps[stage.step]);
      if (rows_of(stage) == 0) continue;
      std::visit([&](const auto& op) { enqueue(stage, op); }, plan_.steps[stage.step].op);
      if (visit != nullptr) stream_.synchronize();  // so that a failure is that of its step
    } catch (...) {
      rethrow_as_step_error(plan_, stage.step, rows_of(stage), device_.text);
    }
    if (visit != nullptr && stage.shown) show(stage, *visit);
  }
}

void CudaProgram::replay(const Graph& graph) {
  for (const Stage& stage : stages_) {
    try {
      inject_faults(plan_.steps[stage.step]);
    } catch (...) {
      rethrow_as_step_error(plan_, stage.step, rows_of(stage), device_.text);
    }
  }
  graph.launch(stream_);
}

std::span<const float> CudaProgram::hand_out() {
  const size_t n = size_t{batch_.logit_rows()} * width(plan_.logits());
  is_queued_ = false;  // whether the wait succeeds or not
  receive([&] {
    stream_.to_host(logits_.data(), slots_.data(plan_.logits()), n);
    stream_.synchronize();
  });
  return {logits_.data(), n};
}

// The only place where a run waits. A batch without logits waits too: its failures are its own, and the batch block is
// free for the next one.
template <typename Wait>
void CudaProgram::receive(Wait wait) {
  try {
    wait();
  } catch (const CodedError& error) {
    if (error.code() != ErrorCode::kDeviceLost) throw;
    std::throw_with_nested(CodedError(ErrorCode::kDeviceLost, fmt::format("{} was lost in a step of a batch of {} rows",
                                                                          device_.text, batch_.rows())));
  } catch (const Error&) {
    find_failure();
  }
  if (options_.poison) slots_.check_guards(stream_);
}

// Inside a catch block: runs the batch again step by step, so that the step that fails is named.
void CudaProgram::find_failure() {
  const StepVisitor nobody = [](size_t, std::span<const float>) {};
  walk(stages_, &nobody);
  throw;
}

void CudaProgram::show(const Stage& stage, const StepVisitor& visit) {
  if (rows_of(stage) == 0) return;
  const SlotId out = output_slot(plan_.steps[stage.step].op);
  std::vector<float> rows(size_t{rows_of(stage)} * width(out));
  stream_.to_host(rows.data(), slots_.data(out), rows.size());
  stream_.synchronize();
  visit(stage.step, rows);
}

}  // namespace llorch::cuda
