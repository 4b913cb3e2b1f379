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

TensorCores::TensorCores(const Plan& plan, const CudaWeights& weights, const CompileOptions& options,
                         const Stream& stream, int n_multiprocessors)
    : plan_(plan),
      weights_(weights),
      zeros_(kActivationMemory, size_t{kStageUnits} * kGroup),
      partial_(kActivationMemory, partial_floats(n_multiprocessors)),
      row_norms_(plan.weights.size()) {
  size_t widest = 0, widest_gated = 0;
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || !takes(*linear)) continue;
    widest = std::max<size_t>(widest, plan.slot(linear->x).width);
    if (!is_gate_and_up(*linear)) continue;
    widest_gated = std::max<size_t>(widest_gated, plan.slot(linear->y).width / 2);
    for (const WeightId id : linear->weights)
      row_norms_[static_cast<size_t>(id)] = largest_row_norm(weights.matrix(id), stream);
  }
  const size_t rows = std::max(options.max_rows, options.max_logit_rows);
  rows_ = make_buffer(rows, widest);
  gated_ = make_buffer(rows, widest_gated);
  stream.fill_bytes(zeros_.data(), 0, zeros_.bytes());
  stream.synchronize();
}

TensorCores::Buffer TensorCores::make_buffer(size_t rows, size_t cols) const {
  const size_t whole_tiles = rows + kTileRows;  // tiles of any size, of which the last has room
  const auto units = static_cast<size_t>(half_units(static_cast<int32_t>(cols)));
  return {DeviceArray<uint4>(kActivationMemory, whole_tiles * units),
          DeviceArray<float>(kActivationMemory, whole_tiles)};
}

HalfRows TensorCores::Buffer::of(int32_t cols, int32_t tile_rows) {
  return {units.data(), scale.data(), half_units(cols), tile_rows};
}

size_t TensorCores::bytes() const {
  return rows_.units.bytes() + rows_.scale.bytes() + gated_.units.bytes() + gated_.scale.bytes() + zeros_.bytes() +
         partial_.bytes();
}

bool TensorCores::takes(const Linear& op) const {
  if (op.weights.size() > kMaxParts || plan_.slot(op.x).width % kElementsPerUnit != 0) return false;
  const DType dtype = plan_.weight(op.weights[0]).dtype;
  return (dtype == DType::kF16 || dtype == DType::kBF16) &&
         std::all_of(op.weights.begin(), op.weights.end(),
                     [&](WeightId id) { return plan_.weight(id).dtype == dtype; });
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
