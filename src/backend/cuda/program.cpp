#include "backend/cuda/program.h"

#include <algorithm>
#include <bit>

#include "backend/slots.h"
#include "backend/step_faults.h"

namespace llorch::cuda {
namespace {

// Decodes of more rows are launched kernel by kernel: their kernels take longer than a launch.
constexpr uint32_t kMaxGraphRows = 64;

// Memory for attention's chunks when blocks share a tile, and the tiles that may.
constexpr size_t kMaxPartialBytes = size_t{64} << 20;
constexpr uint32_t kMaxSplitTiles = 16;

uint32_t choose_heads_per_tile(const Plan& plan) {
  return plan.n_layers == 0 ? 1 : std::min<uint32_t>(plan.heads.n_heads / plan.heads.n_kv_heads, kMaxQueries);
}

}  // namespace

CudaProgram::CudaProgram(const Plan& plan, std::shared_ptr<const CudaWeights> weights, const CompileOptions& options,
                         Device device)
    : plan_(plan),
      options_(options),
      weights_(std::move(weights)),
      device_(std::move(device)),
      kernels_{stream_.get(), device_.overlaps_kernels, device_.n_multiprocessors},
      heads_per_tile_(choose_heads_per_tile(plan_)),
      slots_(plan_, options_),
      batch_(plan_, options_, std::max<uint32_t>(1, kMaxQueries / heads_per_tile_)),
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
  stream_.to_device(cos_.data(), plan_.rope.cos.data(), cos_.size());
  stream_.to_device(sin_.data(), plan_.rope.sin.data(), sin_.size());
  if (options_.poison) stream_.fill_bytes(kv_.data(), 0xff, kv_.bytes());  // NaN in all KV types
  stream_.synchronize();
}

CudaProgram::~CudaProgram() = default;

void CudaProgram::allocate_scratch() {
  size_t widest = 0;
  for (const Step& step : plan_.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear != nullptr && uses(*linear, true)) widest = std::max<size_t>(widest, width(linear->x));
  }
  const size_t rows = std::max(options_.max_rows, options_.max_logit_rows);
  packed_q_ = DeviceArray<int16_t>(kActivationMemory, rows * widest);
  packed_d_ = DeviceArray<float>(kActivationMemory, rows * widest / kQuantBlock);
  packed_sums_ = DeviceArray<int32_t>(kActivationMemory, rows * widest / kQuantBlock);
  packed_ = {packed_q_.data(), packed_d_.data(), packed_sums_.data()};
  if (plan_.n_layers == 0) return;
  const size_t chunks = static_cast<size_t>(divide_up(plan_.context(), kChunk));
  const size_t of_tile = kv_tiles() * chunks * kMaxQueries * (plan_.heads.head_dim + 2);
  const size_t room = kMaxPartialBytes / sizeof(float) / of_tile;
  max_split_tiles_ = static_cast<uint32_t>(std::min<size_t>({room, kMaxSplitTiles, options_.max_rows}));
  attention_partial_ = DeviceArray<float>(kActivationMemory, max_split_tiles_ * of_tile);
  attention_arrivals_ = DeviceArray<unsigned>(kActivationMemory, size_t{max_split_tiles_} * plan_.heads.n_heads);
  stream_.fill_bytes(attention_arrivals_.data(), 0, attention_arrivals_.bytes());
}

// A RmsNorm or GatedAct joins the Linear behind it, and RopeAppend its Attention, when that alone reads its output and
// it is not shown.
std::vector<CudaProgram::Stage> CudaProgram::make_stages(const StepSet& shown) const {
  std::vector<Stage> stages;
  const std::vector<Step>& steps = plan_.steps;
  const std::vector<bool> gathered = gathered_steps(plan_);
  // The next step must not overwrite what feeds the first: blocks read that at different times.
  const auto joins = [&](const Op& op, const Op& next) {
    if (const auto* rope = std::get_if<RopeAppend>(&op)) {
      const auto* attention = std::get_if<Attention>(&next);
      return attention != nullptr && attention->qkv == rope->qkv && attention->layer == rope->layer;
    }
    if (!std::holds_alternative<RmsNorm>(op) && !std::holds_alternative<GatedAct>(op)) return false;
    const auto* linear = std::get_if<Linear>(&next);
    return linear != nullptr && linear->x == output_slot(op) && linear->y != *input_slot(op);
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    const Op* prepare = nullptr;
    if (i + 1 < steps.size() && !shown[i] && joins(steps[i].op, steps[i + 1].op) &&
        !reads_later(plan_, i + 2, output_slot(steps[i].op)))
      prepare = &steps[i++].op;
    stages.push_back({i, gathered[i], prepare, shown[i]});
  }
  return stages;
}

size_t CudaProgram::bytes() const {
  return slots_.bytes() + batch_.bytes() + sampling_.bytes() + kv_.bytes() + cos_.bytes() + sin_.bytes() +
         packed_q_.bytes() + packed_d_.bytes() + packed_sums_.bytes() + attention_partial_.bytes();
}

std::span<const float> CudaProgram::run(const Batch& batch) {
  begin(batch);
  execute(false);
  return hand_out();
}

std::span<const SampledRow> CudaProgram::sample(const Batch& batch, std::span<const RowSampling> rows) {
  LLORCH_CHECK(rows.size() == batch.logit_rows.size(), "{} samplings for {} rows", rows.size(),
               batch.logit_rows.size());
  begin(batch);
  sampling_.fill(rows);
  sampling_.send(stream_);
  execute(true);
  receive([] {});
  return sampling_.results();
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
  llorch::cuda::sample(kernels_, sampling_.args(slots_.data(plan_.logits())),
                       static_cast<int32_t>(batch_.logit_rows()));
  sampling_.ask_for_results(stream_);
}

std::span<const float> CudaProgram::trace(const Batch& batch, const StepSet& steps, const StepVisitor& visit) {
  begin(batch);
  walk(make_stages(steps), &visit);
  return hand_out();
}

void CudaProgram::begin(const Batch& batch) {
  check_batch(batch, plan_, options_);
  use_device(device_.index);
  batch_.fill(batch);
  if (options_.poison) slots_.poison(stream_);
  batch_.send(stream_);
}

void CudaProgram::walk(const std::vector<Stage>& stages, const StepVisitor* visit) {
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
  receive([&] { stream_.to_host(logits_.data(), slots_.data(plan_.logits()), n); });
  return {logits_.data(), n};
}

// The only place where a run waits. A batch without logits waits too: its failures are its own, and the batch block is
// free for the next one.
template <typename Copy>
void CudaProgram::receive(Copy copy) {
  try {
    copy();
    stream_.synchronize();
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
