#include "backend/cuda/tensor_cores.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llorch::cuda {
namespace {

constexpr int kElementsPerUnit = 8;

// More rows leave shares of sums to the norm behind them: one block would add a tile's, there all do (256 rows: 42,300
// tok/s; with a kernel of its own for them 40,400).
constexpr int32_t kRowsThatJoin = 128;

bool leaves_shares(const TensorCores::Product& product, int32_t n) {
  return product.feeds_norm && product.op->accumulate && n > kRowsThatJoin;
}

ProductShape shape_of(const Plan& plan, const TensorCores::Product& product, int32_t n) {
  const Linear& op = *product.op;
  ProductShape shape = {n, 0, divide_up(plan.slot(op.x).width, kElementsPerUnit * kStageUnits),
                        leaves_shares(product, n)};
  for (const WeightId id : op.weights) shape.n_groups += divide_up(plan.weight(id).shape[0], kGroup);
  return shape;
}

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
    widest = std::max<size_t>(widest, plan.slot(linear->x).width);
    if (is_gate_and_up(*linear)) widest_gated = std::max<size_t>(widest_gated, plan.slot(linear->y).width / 2);
    partial = std::max(partial, most_share_floats(shape_of(plan, {linear}, static_cast<int32_t>(rows))));
  }
  units = tile_rows * static_cast<size_t>(half_units(static_cast<int32_t>(widest)));
  // Written in tiles of one size, read in those of another.
  gated_units = (tile_rows + kTileRows) * static_cast<size_t>(half_units(static_cast<int32_t>(widest_gated)));
  arrivals = kMaxArrivals;
  zeros = size_t{kStageUnits} * kGroup;
}

size_t TensorCoreSizes::bytes() const {
  return (units + gated_units + zeros) * sizeof(uint4) + (2 * tile_rows + partial) * sizeof(float) +
         arrivals * sizeof(unsigned);
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
      arrivals_(kActivationMemory, sizes_.arrivals),
      row_norms_(plan.weights.size()) {
  for (const Step& step : plan.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || !is_for_tensor_cores(plan, *linear) || !is_gate_and_up(*linear)) continue;
    for (const WeightId id : linear->weights)
      row_norms_[static_cast<size_t>(id)] = largest_row_norm(weights.matrix(id), stream);
  }
  stream.fill_bytes(zeros_.data(), 0, zeros_.bytes());
  stream.fill_bytes(arrivals_.data(), 0, arrivals_.bytes());
  // Scales of rows that a tile has and a batch has not are read, and used for nothing.
  for (Buffer* buffer : {&rows_, &gated_}) stream.fill_bytes(buffer->scale.data(), 0, buffer->scale.bytes());
  stream.synchronize();
}

HalfRows TensorCores::Buffer::of(int32_t cols, int32_t tile_rows) {
  return {units.data(), scale.data(), half_units(cols), tile_rows};
}

Tiling TensorCores::tiling_of(const KernelStream& stream, const Product& product, int32_t n) const {
  return choose_tiling(shape_of(plan_, product, n), stream.n_multiprocessors);
}

TensorLinearArgs TensorCores::args_of(const Product& product, int32_t n, const Tiling& tiling) {
  const Linear& op = *product.op;
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
  args.n_shares = tiling.n_shares;
  args.partial = partial_.data();
  args.arrivals = arrivals_.data();
  args.leaves_shares = tiling.n_shares > 1 && leaves_shares(product, n);
  return args;
}

void TensorCores::multiply(const KernelStream& stream, const Linear& op, const TensorLinearArgs& args) {
  linear_on_tensor_cores(stream, dtype_of(op), args);
  if (args.leaves_shares) left_ = {partial_.data(), args.n_shares};
}

void TensorCores::multiply(const KernelStream& stream, const Product& product, const InputRows& in, int32_t n,
                           float* y) {
  const Tiling tiling = tiling_of(stream, product, n);
  TensorLinearArgs args = args_of(product, n, tiling);
  args.x = rows_.of(in.cols, tiling.rows);
  args.y = y;
  half_rows(stream, dtype_of(*product.op), in, n, args.x, {}, std::exchange(left_, {}));
  multiply(stream, *product.op, args);
}

void TensorCores::take_from(const KernelStream& stream, AttentionArgs& attention, const Product& product, int32_t n) {
  attention.half_y = rows_.of(weights_.matrix(product.op->weights[0]).view.cols, tiling_of(stream, product, n).rows);
  attention.half_type = dtype_of(*product.op);
}

void TensorCores::multiply_given(const KernelStream& stream, const Product& product, int32_t n, float* y) {
  const Tiling tiling = tiling_of(stream, product, n);
  TensorLinearArgs args = args_of(product, n, tiling);
  args.x = rows_.of(args.parts[0].w.cols, tiling.rows);
  args.y = y;
  multiply(stream, *product.op, args);
}

void TensorCores::multiply_gate_and_up(const KernelStream& stream, const Linear& op, const InputRows& in, int32_t n,
                                       const Product& down) {
  const Tiling tiling = tiling_of(stream, {&op}, n);
  TensorLinearArgs args = args_of({&op}, n, tiling);
  args.x = rows_.of(in.cols, tiling.rows);
  args.gated = gated_.of(args.parts[0].w.rows, tiling_of(stream, down, n).rows);
  const auto norm = [&](size_t i) { return row_norms_[static_cast<size_t>(op.weights[i])]; };
  half_rows(stream, dtype_of(op), in, n, args.x, {args.gated.scale, norm(0) * norm(1)}, std::exchange(left_, {}));
  multiply(stream, op, args);
}

void TensorCores::multiply_gated(const KernelStream& stream, const Product& down, int32_t n, float* y) {
  const Tiling tiling = tiling_of(stream, down, n);
  TensorLinearArgs args = args_of(down, n, tiling);
  args.x = gated_.of(args.parts[0].w.cols, tiling.rows);
  args.y = y;
  multiply(stream, *down.op, args);
}

}  // namespace llorch::cuda
