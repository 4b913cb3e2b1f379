#include "backend/cuda/tensor_cores.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llorch::cuda {
namespace {

constexpr int kElementsPerUnit = 8;

bool is_gate_and_up(const Linear& op) { return op.weights.size() == 2 && !op.accumulate; }

float largest_row_norm(const CudaWeights::Matrix& matrix, const Stream& stream) {
  DeviceArray<float> squares(kActivationMemory, static_cast<size_t>(divide_up(matrix.view.rows, kGroup)) * kGroup);
  row_squares({stream.get()}, matrix.dtype, matrix.view, squares.data());
  std::vector<float> host(squares.size());
  stream.to_host(host.data(), squares.data(), host.size());
  stream.synchronize();
  float largest = 0.0f;
  for (const float s : host) largest = std::isfinite(s) ? std::max(largest, s) : INFINITY;
  return std::sqrt(largest);
}

}  // namespace

TensorCoreSizes::TensorCoreSizes(const Plan& plan, const CompileOptions& options) {
  if (options.numerics == Numerics::kExact) return;
  const size_t rows = std::max(options.max_rows, options.max_logit_rows);
  tile_rows = rows + kTileRows;  // tiles of any size, of which the last has room
  size_t widest = 0, widest_gated = 0;
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || !is_for_tensor_cores(plan, *linear)) continue;
    const size_t x = plan.slot(linear->x).width, y = plan.slot(linear->y).width;
    widest = std::max(widest, x);
    if (is_gate_and_up(*linear)) widest_gated = std::max(widest_gated, y / 2);
    partial = std::max(partial, std::min(kMaxPartialFloats, most_shares(static_cast<int32_t>(x)) * rows * y));
  }
  units = tile_rows * static_cast<size_t>(half_units(static_cast<int32_t>(widest)));
  gated_units = tile_rows * static_cast<size_t>(half_units(static_cast<int32_t>(widest_gated)));
  zeros = size_t{kStageUnits} * kGroup;
}

size_t TensorCoreSizes::bytes() const {
  return (units + gated_units + zeros) * sizeof(uint4) + (2 * tile_rows + partial) * sizeof(float);
}

bool is_for_tensor_cores(const Plan& plan, const Linear& op) {
  if (op.weights.size() > kMaxParts || plan.slot(op.x).width % kElementsPerUnit != 0) return false;
  const DType dtype = plan.weight(op.weights[0]).dtype;
  return (dtype == DType::kF16 || dtype == DType::kBF16) &&
         std::all_of(op.weights.begin(), op.weights.end(), [&](WeightId id) { return plan.weight(id).dtype == dtype; });
}

TensorCores::TensorCores(const Plan& plan, const CudaWeights& weights, const CompileOptions& options,
                         const Stream& stream)
    : plan_(plan),
      weights_(weights),
      sizes_(plan, options),
      rows_{DeviceArray<uint4>(kActivationMemory, sizes_.units),
            DeviceArray<float>(kActivationMemory, sizes_.tile_rows)},
      gated_{DeviceArray<uint4>(kActivationMemory, sizes_.gated_units),
             DeviceArray<float>(kActivationMemory, sizes_.tile_rows)},
      zeros_(kActivationMemory, sizes_.zeros),
      partial_(kActivationMemory, sizes_.partial),
      row_norms_(plan.weights.size()) {
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || !is_for_tensor_cores(plan, *linear) || !is_gate_and_up(*linear)) continue;
    for (const WeightId id : linear->weights)
      row_norms_[static_cast<size_t>(id)] = largest_row_norm(weights.matrix(id), stream);
  }
  stream.fill_bytes(zeros_.data(), 0, zeros_.bytes());
  stream.synchronize();
}

HalfRows TensorCores::Buffer::of(int32_t cols, int32_t tile_rows) {
  return {units.data(), scale.data(), half_units(cols), tile_rows};
}

TensorLinearArgs TensorCores::args_of(const Linear& op, int32_t n) {
  TensorLinearArgs args;
  int32_t column = 0;
  for (size_t i = 0; i < op.weights.size(); ++i) {
    const MatrixView& w = weights_.matrix(op.weights[i]).view;
    args.parts[args.n_parts++] = {w, op.biases.empty() ? nullptr : weights_.vector(op.biases[i]), args.n_groups,
                                  column};
    args.n_groups += divide_up(w.rows, kGroup);
    column += w.rows;
  }
  args.n_rows = n;
  args.y_width = column;
  args.accumulate = op.accumulate;
  args.zeros = zeros_.data();
  args.partial = partial_.data();
  return args;
}

void TensorCores::multiply(const KernelStream& stream, DType dtype, TensorLinearArgs& args, bool next_adds) {
  args.leaves_shares = next_adds && args.accumulate;
  left_ = {partial_.data(), linear_on_tensor_cores(stream, dtype, args)};
}

void TensorCores::multiply(const KernelStream& stream, const Linear& op, const InputRows& in, int32_t n, float* y,
                           bool next_adds) {
  TensorLinearArgs args = args_of(op, n);
  args.x = rows_.of(in.cols, tile_rows_of(n, args.n_groups, stream.n_multiprocessors));
  args.y = y;
  half_rows(stream, dtype_of(op), in, n, args.x, {}, std::exchange(left_, {}));
  multiply(stream, dtype_of(op), args, next_adds);
}

void TensorCores::take_from(const KernelStream& stream, AttentionArgs& attention, const Linear& op, int32_t n) {
  const TensorLinearArgs args = args_of(op, n);
  attention.half_y = rows_.of(args.parts[0].w.cols, tile_rows_of(n, args.n_groups, stream.n_multiprocessors));
  attention.half_type = dtype_of(op);
}

void TensorCores::multiply_given(const KernelStream& stream, const Linear& op, int32_t n, float* y, bool next_adds) {
  TensorLinearArgs args = args_of(op, n);
  args.x = rows_.of(args.parts[0].w.cols, tile_rows_of(n, args.n_groups, stream.n_multiprocessors));
  args.y = y;
  multiply(stream, dtype_of(op), args, next_adds);
}

void TensorCores::multiply_gate_and_up(const KernelStream& stream, const Linear& op, const InputRows& in, int32_t n) {
  TensorLinearArgs args = args_of(op, n);
  args.x = rows_.of(in.cols, tile_rows_of(n));
  args.gated = gated_.of(args.parts[0].w.rows, tile_rows_of(n));
  const auto norm = [&](size_t i) { return row_norms_[static_cast<size_t>(op.weights[i])]; };
  half_rows(stream, dtype_of(op), in, n, args.x, {args.gated.scale, norm(0) * norm(1)}, std::exchange(left_, {}));
  linear_on_tensor_cores(stream, dtype_of(op), args);
}

void TensorCores::multiply_gated(const KernelStream& stream, const Linear& op, int32_t n, float* y, bool next_adds) {
  TensorLinearArgs args = args_of(op, n);
  args.x = gated_.of(args.parts[0].w.cols, tile_rows_of(n));
  args.y = y;
  multiply(stream, dtype_of(op), args, next_adds);
}

}  // namespace llorch::cuda
