// What each verb puts into the stream.
#include <algorithm>
#include <bit>

#include "backend/cuda/program.h"

namespace llorch::cuda {
namespace {

// Blocks that attention is split into, for each multiprocessor, and for each tile.
constexpr uint32_t kBlocksPerMultiprocessorOfAttention = 2, kMaxSplits = 32;

}  // namespace

void CudaProgram::enqueue(const Stage& stage, const Embed& op) {
  const CudaWeights::Matrix& table = weights_->matrix(op.table);
  embed(kernels_, table.dtype, table.view, {batch_.view().tokens, sampling_.last_tokens()},
        static_cast<int32_t>(rows_of(stage)), op.scale, slots_.data(op.y));
}

InputRows CudaProgram::input_of(const Op& op) {
  InputRows in;
  const SlotId x = *input_slot(op);
  in.x = slots_.data(left_out_ && left_out_->y == x ? left_out_->x : x);
  in.stride = in.cols = static_cast<int32_t>(width(x));
  if (const auto* norm = std::get_if<RmsNorm>(&op)) {
    in.prepare = Prepare::kRmsNorm;
    in.norm_weight = weights_->vector(norm->weight);
    in.eps = norm->eps;
  } else if (std::holds_alternative<GatedAct>(op)) {
    in.prepare = Prepare::kGatedAct;
    in.cols = in.stride / 2;
  }
  return in;
}

void CudaProgram::enqueue(const Stage& stage, const RmsNorm& op) {
  prepare_rows(kernels_, input_of(op), static_cast<int32_t>(rows_of(stage)), slots_.data(op.y));
}

void CudaProgram::enqueue(const Stage& stage, const GatedAct& op) {
  prepare_rows(kernels_, input_of(op), static_cast<int32_t>(rows_of(stage)), slots_.data(op.y));
}

// Of rows that all want logits it is a copy, which the step that reads it does without.
void CudaProgram::enqueue(const Stage& stage, const GatherRows& op) {
  const bool is_overwritten =
      std::any_of(plan_.steps.begin() + static_cast<ptrdiff_t>(stage.step) + 1, plan_.steps.end(),
                  [&](const Step& s) { return output_slot(s.op) == op.x || output_slot(s.op) == op.y; });
  if (batch_.is_decode() && !stage.shown && !is_overwritten) {
    left_out_ = op;
    return;
  }
  gather_rows(kernels_, slots_.data(op.x), batch_.view().logit_rows, static_cast<int32_t>(rows_of(stage)),
              static_cast<int32_t>(width(op.x)), slots_.data(op.y));
}

// Where the int16 blocks of a slot's rows go: not where the last ones are, which may be read now.
PackedRows CudaProgram::pack_for(SlotId slot) {
  packed_last_ = 1 - packed_last_;
  packed_slot_ = slot;
  return packed_[packed_last_].view();
}

bool CudaProgram::is_on_tensor_cores(const Stage& stage, const Linear& op) const {
  return tensor_cores_ && rows_of(stage) > kExactRows && is_for_tensor_cores(plan_, op);
}

void CudaProgram::enqueue_on_tensor_cores(const Stage& stage, const Linear& op) {
  packed_slot_.reset();
  const auto rows = static_cast<int32_t>(rows_of(stage));
  const TensorCores::Product product = {&op, stage.feeds_norm};
  if (stage.halves_from != nullptr && std::holds_alternative<GatedAct>(*stage.halves_from))
    return tensor_cores_->multiply_gated(kernels_, product, rows, slots_.data(op.y));
  if (stage.halves_from != nullptr) return tensor_cores_->multiply_given(kernels_, product, rows, slots_.data(op.y));
  const InputRows in = input_of(stage.prepare != nullptr ? *stage.prepare : Op(op));
  if (stage.halves_for.op != nullptr)
    return tensor_cores_->multiply_gate_and_up(kernels_, op, in, rows, stage.halves_for);
  tensor_cores_->multiply(kernels_, product, in, rows, slots_.data(op.y));
  if (stage.then != nullptr) enqueue(stage, std::get<GatedAct>(*stage.then));
}

void CudaProgram::enqueue(const Stage& stage, const Linear& op) {
  if (is_on_tensor_cores(stage, op)) return enqueue_on_tensor_cores(stage, op);
  const auto rows = static_cast<int32_t>(rows_of(stage));
  InputRows in = input_of(stage.prepare != nullptr ? *stage.prepare : Op(op));
  // Few rows' norm and int16 blocks each block makes for itself: cheaper than one more kernel to wait for. An
  // activation that is not made with gate and up is rare.
  const bool prepares = rows > kFusedRows || in.prepare == Prepare::kGatedAct;
  PackedRows packed;
  if (packed_slot_ == op.x && stage.prepare == nullptr)
    packed = packed_[packed_last_].view();
  else if (prepares && uses(plan_, op, true))
    pack_rows(kernels_, in, rows, packed = pack_for(op.x));
  if (prepares && uses(plan_, op, false) && in.prepare != Prepare::kNone) {
    prepare_rows(kernels_, in, rows, slots_.data(op.x));  // as if it were not fused
    in = input_of(op);
  }
  packed_slot_.reset();
  const SlotId y = stage.then != nullptr ? output_slot(*stage.then) : op.y;
  int32_t column = 0;
  for (size_t i = 0; i < op.weights.size();) {
    LinearArgs args;
    const DType dtype = weights_->matrix(op.weights[i]).dtype;
    for (; i < op.weights.size() && args.n_parts < kMaxParts && weights_->matrix(op.weights[i]).dtype == dtype; ++i) {
      const MatrixView& w = weights_->matrix(op.weights[i]).view;
      args.parts[args.n_parts++] = {w, op.biases.empty() ? nullptr : weights_->vector(op.biases[i]), args.n_groups,
                                    column};
      args.n_groups += divide_up(w.rows, kGroup);
      column += w.rows;
    }
    args.n_rows = rows;
    args.x = in;
    args.packed = packed;
    args.y = slots_.data(y);
    args.y_width = static_cast<int32_t>(width(y));
    args.accumulate = op.accumulate;
    args.gates = stage.then != nullptr;
    if (args.gates && stage.packs) args.packed_y = pack_for(y);
    args.is_first = args.parts[0].column == 0;
    if (i < op.weights.size())
      args.next = NextBegins::kWithInput;
    else if (rows == 1 && few_weights_ && in.prepare == Prepare::kRmsNorm)
      args.next = NextBegins::kAfterInput;
    linear(kernels_, dtype, args);
  }
}

static_assert(kKvBlockSize == kKvBlock);

KvView CudaProgram::kv_view(uint32_t layer) {
  const Heads& h = plan_.heads;
  KvView view;
  view.value_bytes = static_cast<int32_t>(kv_head_bytes(h.head_dim, options_.kv.dtype));
  view.half_bytes = options_.kv.page_size * kv_head_bytes(h.head_dim, options_.kv.dtype);
  view.page_bytes = 2 * view.half_bytes * h.n_kv_heads;
  view.memory = kv_.data() + size_t{layer} * options_.kv.n_pages * view.page_bytes;
  view.page_shift = std::countr_zero(options_.kv.page_size);
  view.n_kv_heads = static_cast<int32_t>(h.n_kv_heads);
  view.n_heads = static_cast<int32_t>(h.n_heads);
  view.head_dim = static_cast<int32_t>(h.head_dim);
  view.dtype = options_.kv.dtype;
  return view;
}

RopeArgs CudaProgram::rope_args(const RopeAppend& op) {
  RopeArgs args;
  args.qkv = slots_.data(op.qkv);
  args.cos = cos_.data();
  args.sin = sin_.data();
  args.pairs = op.pairs;
  args.kv = kv_view(op.layer);
  args.batch = batch_.view();
  return args;
}

void CudaProgram::enqueue(const Stage& stage, const RopeAppend& op) {
  rope_append(kernels_, rope_args(op), static_cast<int32_t>(rows_of(stage)));
}

AttentionArgs CudaProgram::attention_args(const Attention& op) {
  AttentionArgs args;
  args.qkv = slots_.data(op.qkv);
  args.y = slots_.data(op.y);
  args.scale = op.scale;
  args.window = op.window;
  args.kv = kv_view(op.layer);
  args.batch = batch_.view();
  args.partial = attention_partial_.data();
  args.max_chunks = divide_up(plan_.context(), kChunk);
  args.arrivals = attention_arrivals_.data();
  return args;
}

// Blocks that share a tile, where `tiles` tiles in all do not fill the device.
int32_t CudaProgram::attention_splits(uint32_t rows, uint32_t tiles) const {
  if (rows > max_split_tiles_) return 1;
  const uint32_t wanted =
      kBlocksPerMultiprocessorOfAttention * static_cast<uint32_t>(device_.n_multiprocessors) / tiles;
  const auto chunks = static_cast<uint32_t>(divide_up(plan_.context(), kChunk));
  return static_cast<int32_t>(std::clamp<uint32_t>(wanted, 1, std::min(kMaxSplits, chunks)));
}

// Those of the product behind a stage and what follows, as much as the second-level cache keeps until it is read. None
// of quantized weights: so small are they that their rings have them in time.
MemoryAhead CudaProgram::weights_behind(const Stage& stage) const {
  const auto* next =
      stage.step + 1 < plan_.steps.size() ? std::get_if<Linear>(&plan_.steps[stage.step + 1].op) : nullptr;
  if (next == nullptr || uses(plan_, *next, true)) return {};
  const std::span<const std::byte> weights = weights_->from(next->weights[0]);
  constexpr size_t kUnit = 16;
  return {weights.data(), static_cast<uint32_t>(std::min(weights.size(), device_.cache_bytes * 5 / 8) / kUnit * kUnit)};
}

void CudaProgram::enqueue(const Stage& stage, const Attention& op) {
  const RopeAppend* rope = stage.prepare != nullptr ? &std::get<RopeAppend>(*stage.prepare) : nullptr;
  AttentionArgs args = attention_args(op);
  const bool is_on_tensor_cores = batch_.rows() > kExactRows && is_attention_on_tensor_cores();
  const bool are_prompts = is_on_tensor_cores && device_.has_wgmma && !batch_.is_one_row_each();
  const bool are_decodes = batch_.is_one_row_each() && (is_on_tensor_cores || has_room_for_decodes(kernels_, args.kv));
  if (is_on_tensor_cores && stage.halves_for.op != nullptr)
    tensor_cores_->take_from(kernels_, args, stage.halves_for, static_cast<int32_t>(batch_.rows()));
  if (rope != nullptr && (are_decodes || are_prompts)) {
    args.cos = cos_.data();
    args.sin = sin_.data();
    args.pairs = rope->pairs;
  }
  if (rope != nullptr && !are_decodes) {
    RopeArgs first = rope_args(*rope);
    if (are_prompts) first.first_head = first.kv.n_heads;
    rope_append(kernels_, first, static_cast<int32_t>(batch_.rows()));
  }
  if (are_prompts || (!are_decodes && !is_on_tensor_cores)) {
    args.n_tiles = static_cast<int32_t>(are_prompts ? batch_.wide_tiles() : batch_.tiles());
    args.heads_per_tile = static_cast<int32_t>(heads_per_tile_);
    if (are_prompts) return attention_on_tensor_cores(kernels_, args);
    args.n_splits = attention_splits(batch_.tiles(), batch_.tiles() * kv_tiles(plan_));
    return attention(kernels_, args);
  }
  args.n_tiles = static_cast<int32_t>(batch_.rows());  // without wgmma of prompts, too: their keys are in the pages
  if (is_on_tensor_cores) return attention_of_decodes_on_tensor_cores(kernels_, args);
  if (stage.packs && plan_.heads.head_dim % kQuantBlock == 0) args.packed_y = pack_for(op.y);
  // As many heads share the reading of their keys and values as leave enough blocks to fill the device.
  const Heads& h = plan_.heads;
  const uint32_t rows = batch_.rows(), group = h.n_heads / h.n_kv_heads;
  uint32_t heads = kMaxQueries;
  const auto tiles = [&] { return rows * h.n_kv_heads * static_cast<uint32_t>(divide_up(group, heads)); };
  while (heads > 1 && (heads / 2 >= group || tiles() < static_cast<uint32_t>(device_.n_multiprocessors))) heads /= 2;
  args.heads_per_tile = static_cast<int32_t>(heads);
  args.n_splits = attention_splits(rows, tiles());
  if (rows == 1) args.ahead = weights_behind(stage);
  if (rows == 1 && few_weights_) args.next = NextBegins::kAfterInput;
  attention_of_decodes(kernels_, args);
}

}  // namespace llorch::cuda
