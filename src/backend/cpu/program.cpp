#include "backend/cpu/program.h"

#include <algorithm>

#include "backend/memory.h"
#include "backend/step_faults.h"

namespace llorch::cpu {
namespace {

// A single row is packed by each thread for itself: cheaper than one more stage to wait for.
constexpr uint32_t kPrivateRows = 1;

// Rows that one task of a row-wise step takes.
constexpr uint32_t kRowsPerTask = 4;

// A Linear's tasks. Few rows: the weights stream from memory. A run of them begins slowly (what is asked for ahead of
// its end belongs to another thread), so long runs read faster; but the last one makes the other threads wait, so each
// thread has several, and none is too small to be worth its taking (16 KB: some 2 us). Many rows: neighbours share a
// cache.
constexpr size_t kMinBytesPerTask = 16 << 10, kMaxBytesPerTask = 96 << 10;
constexpr size_t kTasksPerThread = 12, kTasksPerThreadOfManyRows = 8;
constexpr uint32_t kManyRows = 8;

uint32_t divide_up(uint32_t n, uint32_t by) { return (n + by - 1) / by; }

}  // namespace

CpuProgram::CpuProgram(const Plan& plan, std::shared_ptr<const CpuWeights> weights, const CompileOptions& options,
                       std::shared_ptr<ThreadPool> pool, const Kernels& kernels, std::string device)
    : plan_(plan),
      options_(options),
      weights_(std::move(weights)),
      pool_(std::move(pool)),
      kernels_(kernels),
      slots_(plan_, options_),
      kv_(allocate(kKvMemory, options_.kv.n_pages * kv_page_bytes(plan_, options_.kv),
                   [this] { return KvCache(plan_, options_.kv); })),
      device_(std::move(device)),
      stages_(make_stages(StepSet(plan_.steps.size()))),
      widest_(widest_input(plan_)) {
  if (options_.poison) kv_.poison();
  const size_t bytes = packed_bytes(packed_capacity(), widest_);
  packed_ = allocate(kActivationMemory, bytes, [&] { return Buffer(bytes); });
  for (int t = 0; t < pool_->size(); ++t)
    scratch_.push_back({std::vector<float>(size_t{kMaxTileRows} * widest_), Buffer(packed_bytes(kPrivateRows, widest_)),
                        std::vector<float>(size_t{kMaxQueries} * plan_.heads.head_dim)});
}

// A RmsNorm or GatedAct joins the Linear behind it when that alone reads its output and it is not shown.
std::vector<CpuProgram::Stage> CpuProgram::make_stages(const StepSet& shown) const {
  std::vector<Stage> stages;
  const std::vector<Step>& steps = plan_.steps;
  const std::vector<bool> gathered = gathered_steps(plan_);
  for (size_t i = 0; i < steps.size(); ++i) {
    const Op* prepare = nullptr;
    const bool joins = std::holds_alternative<RmsNorm>(steps[i].op) || std::holds_alternative<GatedAct>(steps[i].op);
    if (joins && i + 1 < steps.size() && !shown[i]) {
      const auto* next = std::get_if<Linear>(&steps[i + 1].op);
      const SlotId out = output_slot(steps[i].op);
      // The Linear must not overwrite what feeds it: threads read that at different times.
      const bool fits = next != nullptr && next->x == out && next->y != *input_slot(steps[i].op);
      if (fits && !reads_later(plan_, i + 2, out)) prepare = &steps[i++].op;
    }
    if (std::holds_alternative<Linear>(steps[i].op)) stages.push_back({i, Phase::kPack, gathered[i], prepare});
    stages.push_back({i, Phase::kCompute, gathered[i], prepare});
    if (shown[i]) stages.push_back({i, Phase::kShow, gathered[i], nullptr});
  }
  return stages;
}

std::span<const float> CpuProgram::walk(const Batch& batch, const std::vector<Stage>& stages,
                                        const StepVisitor& visit) {
  check_batch(batch, plan_, options_);
  batch_ = &batch;
  visit_ = &visit;
  n_rows_ = batch.rows();
  n_logit_rows_ = static_cast<uint32_t>(batch.logit_rows.size());
  positions_.clear();
  row_sequence_.clear();
  for (uint32_t s = 0; s < batch.sequences.size(); ++s)
    for (uint32_t i = 0; i < batch.sequences[s].n_rows; ++i) {
      positions_.push_back(batch.sequences[s].first_position + i);
      row_sequence_.push_back(s);
    }
  if (options_.poison) slots_.poison();
  make_tiles();
  make_attention_tasks();
  task_counts_.clear();
  for (const Stage& stage : stages) task_counts_.push_back(count_tasks(stage));
  for (Scratch& scratch : scratch_) scratch.packed_stage = 0;
  pool_->run(task_counts_, [&](size_t index, uint32_t task, int thread) {
    if (stages[index].phase == Phase::kShow) return show(stages[index]);  // what a visitor throws is no step's failure
    try {
      if (task == 0 && stages[index].phase == Phase::kCompute) inject_faults(plan_.steps[stages[index].step]);
      if (thread > 0 && fault("thread")) throw std::runtime_error("a task of another thread threw (injected)");
      run_task(stages[index], index, task, thread);
    } catch (...) {
      rethrow_as_step_error(plan_, stages[index].step, rows_of(stages[index]), device_);
    }
  });
  if (options_.poison) slots_.check_guards();
  const SlotId logits = plan_.logits();
  return {slots_.data(logits), size_t{n_logit_rows_} * width(logits)};
}

uint32_t CpuProgram::count_tasks(const Stage& stage) const {
  const Op& op = plan_.steps[stage.step].op;
  const auto* linear = std::get_if<Linear>(&op);
  const uint32_t rows = rows_of(stage);
  if (rows == 0) return 0;
  switch (stage.phase) {
    case Phase::kShow:
      return 1;
    case Phase::kPack:
      // The tiles of one arithmetic; where stacked weights need both, a task packs a tile of each.
      return packs_privately(stage) ? 0
                                    : static_cast<uint32_t>(std::max(tiles_[stage.gathered][false].size(),
                                                                     tiles_[stage.gathered][true].size()));
    case Phase::kCompute:
      if (linear != nullptr) return divide_up(count_groups(*linear), groups_per_task(*linear, rows));
      if (std::holds_alternative<Attention>(op)) return static_cast<uint32_t>(attention_tasks_.size());
      return divide_up(rows, kRowsPerTask);
  }
  return 0;
}

void CpuProgram::show(const Stage& stage) {
  const SlotId out = output_slot(plan_.steps[stage.step].op);
  (*visit_)(stage.step, {slots_.data(out), size_t{rows_of(stage)} * width(out)});
}

// index: of the stage, in the list that is walked.
void CpuProgram::run_task(const Stage& stage, size_t index, uint32_t task, int thread) {
  const Op& op = plan_.steps[stage.step].op;
  Scratch& scratch = scratch_[static_cast<size_t>(thread)];
  if (const auto* linear = std::get_if<Linear>(&op)) {
    const bool is_private = packs_privately(stage);
    if (stage.phase == Phase::kPack || (is_private && scratch.packed_stage != index)) {
      const PackedRows out =
          is_private ? packed_rows(scratch.packed, kPrivateRows) : packed_rows(packed_, packed_capacity());
      const uint32_t tile = is_private ? 0 : task;
      for (const bool quantized : {false, true})
        if (const std::vector<Tile>& tiles = tiles_[stage.gathered][quantized];
            uses(*linear, quantized) && tile < tiles.size())
          pack_tile(stage, *linear, quantized, tiles[tile], out, scratch);
      scratch.packed_stage = index;
    }
    if (stage.phase == Phase::kPack) return;
  }
  std::visit([&](const auto& verb) { step(stage, verb, task, thread); }, op);
}

void CpuProgram::step(const Stage& stage, const Embed& op, uint32_t task, int) {
  const uint32_t last = std::min(rows_of(stage), (task + 1) * kRowsPerTask);
  for (uint32_t r = task * kRowsPerTask; r < last; ++r)
    weights_->matrix(op.table).read_row(batch_->tokens[r], op.scale, row(op.y, r));
}

void CpuProgram::prepare_row(const Op& op, uint32_t r, float* y) const {
  if (const auto* norm = std::get_if<RmsNorm>(&op)) {
    kernels_.rms_norm(row(norm->x, r), weights_->vector(norm->weight), norm->eps, static_cast<int>(width(norm->x)), y);
  } else {
    const auto& act = std::get<GatedAct>(op);
    const auto n = static_cast<int>(width(act.y));
    const float* gate = row(act.gate_up, r);
    kernels_.gated_silu(gate, gate + n, n, y);
  }
}

void CpuProgram::step(const Stage& stage, const RmsNorm& op, uint32_t task, int) {
  const uint32_t last = std::min(rows_of(stage), (task + 1) * kRowsPerTask);
  for (uint32_t r = task * kRowsPerTask; r < last; ++r) prepare_row(plan_.steps[stage.step].op, r, row(op.y, r));
}

void CpuProgram::step(const Stage& stage, const GatedAct& op, uint32_t task, int) {
  const uint32_t last = std::min(rows_of(stage), (task + 1) * kRowsPerTask);
  for (uint32_t r = task * kRowsPerTask; r < last; ++r) prepare_row(plan_.steps[stage.step].op, r, row(op.y, r));
}

void CpuProgram::step(const Stage& stage, const GatherRows& op, uint32_t task, int) {
  const uint32_t last = std::min(rows_of(stage), (task + 1) * kRowsPerTask);
  for (uint32_t r = task * kRowsPerTask; r < last; ++r)
    std::copy_n(row(op.x, batch_->logit_rows[r]), width(op.x), row(op.y, r));
}

void CpuProgram::step(const Stage& stage, const RopeAppend& op, uint32_t task, int) {
  const Heads& h = plan_.heads;
  const uint32_t page_size = options_.kv.page_size;
  const auto kernel = options_.kv.dtype == DType::kF16   ? kernels_.rope_append_f16
                      : options_.kv.dtype == DType::kF32 ? kernels_.rope_append_f32
                                                         : kernels_.rope_append_q8;
  const uint32_t last = std::min(rows_of(stage), (task + 1) * kRowsPerTask);
  for (uint32_t r = task * kRowsPerTask; r < last; ++r) {
    const uint32_t position = positions_[r];
    const uint32_t page = batch_->pages[batch_->sequences[row_sequence_[r]].first_page + position / page_size];
    const size_t angle = size_t{position} * plan_.rope.half_dim;
    kernel({.qkv = row(op.qkv, r),
            .cos = &plan_.rope.cos[angle],
            .sin = &plan_.rope.sin[angle],
            .n_heads = static_cast<int32_t>(h.n_heads),
            .n_kv_heads = static_cast<int32_t>(h.n_kv_heads),
            .head_dim = static_cast<int32_t>(h.head_dim),
            .pairs = op.pairs,
            .k = kv_.keys(op.layer, page, 0) + kv_.key_offset(position % page_size),
            .v = kv_.values(op.layer, page, 0) + kv_.value_offset(position % page_size),
            .k_scales = kv_.keys(op.layer, page, 0) + kv_.key_scale_offset(position % page_size),
            .v_scales = kv_.values(op.layer, page, 0) + kv_.value_scale_offset(position % page_size),
            .head_stride = kv_.head_stride()});
  }
}

// Tiles of up to kMaxQueries queries that share a KV head: some heads of its group times some rows of a sequence.
void CpuProgram::make_attention_tasks() {
  attention_tasks_.clear();
  if (plan_.n_layers == 0) return;
  const Heads& h = plan_.heads;
  const uint32_t per_group = h.n_heads / h.n_kv_heads;
  const uint32_t heads = std::min<uint32_t>(per_group, kMaxQueries);
  const uint32_t rows = std::max<uint32_t>(1, kMaxQueries / heads);
  for (uint32_t s = 0; s < batch_->sequences.size(); ++s)
    for (uint32_t r = 0; r < batch_->sequences[s].n_rows; r += rows)
      for (uint32_t kv_head = 0; kv_head < h.n_kv_heads; ++kv_head)
        for (uint32_t head = 0; head < per_group; head += heads)
          attention_tasks_.push_back({s, batch_->sequences[s].first_row + r,
                                      std::min(rows, batch_->sequences[s].n_rows - r), kv_head, head,
                                      std::min(heads, per_group - head)});
}

void CpuProgram::step(const Stage&, const Attention& op, uint32_t index, int thread) {
  const AttentionTask& task = attention_tasks_[index];
  const Heads& h = plan_.heads;
  const auto kernel = options_.kv.dtype == DType::kF16   ? kernels_.attention_f16
                      : options_.kv.dtype == DType::kF32 ? kernels_.attention_f32
                                                         : kernels_.attention_q8;
  AttentionArgs args;
  args.window = static_cast<int32_t>(op.window);
  args.head_dim = static_cast<int32_t>(h.head_dim);
  args.scale = op.scale;
  args.pages = &batch_->pages[batch_->sequences[task.sequence].first_page];
  args.page_shift = kv_.page_shift();
  args.k = kv_.keys(op.layer, 0, task.kv_head);
  args.v = kv_.values(op.layer, 0, task.kv_head);
  args.page_stride = kv_.page_stride();
  args.scratch = scratch_[static_cast<size_t>(thread)].attention.data();
  // The kernel is compiled for 1, 2, 3, 4 and 8 queries.
  const uint32_t total = task.n_rows * task.n_heads;
  for (uint32_t done = 0; done < total;) {
    const uint32_t left = total - done;
    const uint32_t n = left >= 8 ? 8 : std::min<uint32_t>(left, 4);
    for (uint32_t i = 0; i < n; ++i, ++done) {
      const uint32_t r = task.first_row + done / task.n_heads;
      const uint32_t head = task.kv_head * (h.n_heads / h.n_kv_heads) + task.first_head + done % task.n_heads;
      args.q[i] = row(op.qkv, r) + head * h.head_dim;
      args.y[i] = row(op.y, r) + head * h.head_dim;
      args.position[i] = static_cast<int32_t>(positions_[r]);
    }
    args.n_queries = static_cast<int32_t>(n);
    kernel(args);
  }
}

PackedRows CpuProgram::packed_rows(Buffer& buffer, uint32_t rows) const {
  PackedRows packed;
  std::byte* p = buffer.data();
  packed.floats = reinterpret_cast<float*>(p);
  p += size_t{rows} * widest_ * sizeof(float);
  packed.pairs = reinterpret_cast<int32_t*>(p);
  p += size_t{rows} * widest_ / 2 * sizeof(int32_t);
  packed.scales = reinterpret_cast<float*>(p);
  p += size_t{rows} * widest_ / kQuantBlock * sizeof(float);
  packed.sums = reinterpret_cast<int32_t*>(p);
  p += size_t{rows} * widest_ / kQuantBlock * sizeof(int32_t);
  packed.first_sums = reinterpret_cast<int32_t*>(p);
  return packed;
}

void CpuProgram::make_tiles() {
  for (const bool gathered : {false, true})
    for (const bool quantized : {false, true}) {
      std::vector<Tile>& tiles = tiles_[gathered][quantized];
      const uint32_t rows = gathered ? n_logit_rows_ : n_rows_;
      tiles.clear();
      for (uint32_t r = 0; r < rows; r += static_cast<uint32_t>(tiles.back().n_rows))
        tiles.push_back({r, kernels_.tile_rows(quantized ? DType::kQ8_0 : DType::kF32, static_cast<int>(rows - r))});
    }
}

bool CpuProgram::packs_privately(const Stage& stage) const { return rows_of(stage) <= kPrivateRows; }

bool CpuProgram::uses(const Linear& op, bool quantized) const {
  return std::any_of(op.weights.begin(), op.weights.end(),
                     [&](WeightId id) { return is_quantized(plan_.weight(id).dtype) == quantized; });
}

uint32_t CpuProgram::count_groups(const Linear& op) const {
  uint32_t n = 0;
  for (const WeightId id : op.weights) n += static_cast<uint32_t>(weights_->matrix(id).groups());
  return n;
}

// An even number, as the kernels take two groups at once; of many rows no more than kWidenedGroups, for which rows are
// fetched once: the more tasks, the less a thread waits for a slower one.
uint32_t CpuProgram::groups_per_task(const Linear& op, uint32_t rows) const {
  const size_t group_bytes = weights_->matrix(op.weights[0]).view().data_stride;
  const size_t n_groups = count_groups(op), n_threads = static_cast<size_t>(pool_->size());
  const size_t share = n_groups * group_bytes / n_threads;  // of one thread
  const size_t bytes = rows > kManyRows ? std::max(share / kTasksPerThreadOfManyRows, kMaxBytesPerTask)
                                        : std::clamp(share / kTasksPerThread, kMinBytesPerTask, kMaxBytesPerTask);
  const auto groups = static_cast<uint32_t>(bytes / group_bytes);
  if (rows > kManyRows && groups > kWidenedGroups) return kWidenedGroups;
  return std::max(1u, divide_up(groups, 2)) * 2;
}

void CpuProgram::pack_tile(const Stage& stage, const Linear& op, bool quantized, const Tile& tile, PackedRows out,
                           Scratch& scratch) {
  const auto cols = static_cast<int>(width(op.x));
  const float* x[kMaxTileRows];
  for (int i = 0; i < tile.n_rows; ++i) {
    const uint32_t r = tile.first_row + static_cast<uint32_t>(i);
    x[i] = row(op.x, r);
    if (stage.prepare != nullptr) {
      float* made = scratch.rows.data() + static_cast<size_t>(i) * widest_;
      prepare_row(*stage.prepare, r, made);
      x[i] = made;
    }
  }
  const size_t at = size_t{tile.first_row} * width(op.x);
  const size_t at_block = at / kQuantBlock;
  if (quantized)
    kernels_.pack_quantized(
        x, tile.n_rows, cols,
        {nullptr, out.pairs + at / 2, out.scales + at_block, out.sums + at_block, out.first_sums + at_block});
  else
    kernels_.pack_floats(x, tile.n_rows, cols, out.floats + at);
}

void CpuProgram::step(const Stage& stage, const Linear& op, uint32_t task, int thread) {
  const PackedRows packed = packs_privately(stage)
                                ? packed_rows(scratch_[static_cast<size_t>(thread)].packed, kPrivateRows)
                                : packed_rows(packed_, packed_capacity());
  // The groups of all stacked weights are one range that tasks cut.
  const auto per_task = static_cast<int>(groups_per_task(op, rows_of(stage)));
  const int first = static_cast<int>(task) * per_task, last = first + per_task;
  int before = 0;
  size_t column = 0;
  for (size_t i = 0; i < op.weights.size(); ++i) {
    const InterleavedMatrix& matrix = weights_->matrix(op.weights[i]);
    LinearArgs args{.w = matrix.view(), .x = packed};
    args.first_group = std::clamp(first - before, 0, matrix.groups());
    args.last_group = std::clamp(last - before, 0, matrix.groups());
    args.n_rows = static_cast<int32_t>(rows_of(stage));
    args.y = row(op.y, 0) + column;
    args.ldy = width(op.y);
    args.bias = op.biases.empty() ? nullptr : weights_->vector(op.biases[i]);
    args.accumulate = op.accumulate;
    if (args.first_group < args.last_group) kernels_.linear[static_cast<size_t>(matrix.dtype())](args);
    before += matrix.groups();
    column += static_cast<size_t>(matrix.rows());
  }
}

}  // namespace llorch::cpu
