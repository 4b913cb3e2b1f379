#include "backend/cuda/tensor_cores.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "backend/cuda/scratch.h"

namespace llorch::cuda {
namespace {

// More rows leave shares of sums to the norm behind them: one block would add a tile's, there all do (256 rows: 42,300
// tok/s; with a kernel of its own for them 40,400).
constexpr int32_t kRowsThatJoin = 128;

bool leaves_shares(const TensorCores::Product& product, int32_t n) {
  return product.feeds_norm && product.op->accumulate && n > kRowsThatJoin;
}

ProductShape shape_of(const Plan& plan, const TensorCores::Product& product, int32_t n) {
  const Linear& op = *product.op;
  ProductShape shape = {n, 0, divide_up(plan.slot(op.x).width, kHalvesPerUnit * kStageUnits),
                        leaves_shares(product, n)};
  for (const WeightId id : op.weights) shape.n_groups += divide_up(plan.weight(id).shape[0], kGroup);
  return shape;
}

bool is_gate_and_up(const Linear& op) { return op.weights.size() == 2 && !op.accumulate; }

// What weights are divided by before they are rounded to f16, so that the largest is below 2^15.
float scale_of(float largest) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0f, std::clamp(exponent - 15, -126, 126));
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
  if (op.weights.size() > kMaxParts || plan.slot(op.x).width % kHalvesPerUnit != 0) return false;
  const DType dtype = plan.weight(op.weights[0]).dtype;
  if (is_quantized(dtype)) return !uses(plan, op, false);
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
      weight_sizes_(measure(stream)) {
  stream.fill_bytes(zeros_.data(), 0, zeros_.bytes());
  stream.fill_bytes(arrivals_.data(), 0, arrivals_.bytes());
  // Rows that a tile has and a batch has not are read, and used for nothing.
  for (Buffer* buffer : {&rows_, &gated_}) {
    stream.fill_bytes(buffer->units.data(), 0, buffer->units.bytes());
    stream.fill_bytes(buffer->scale.data(), 0, buffer->scale.bytes());
  }
  stream.synchronize();
}

std::vector<TensorCores::WeightSize> TensorCores::measure(const Stream& stream) const {
  std::vector<MatrixSize> host(plan_.weights.size());
  DeviceArray<MatrixSize> sizes(kActivationMemory, host.size());
  stream.fill_bytes(sizes.data(), 0, sizes.bytes());
  for (const Step& step : plan_.steps) {
    const auto* linear = std::get_if<Linear>(&step.op);
    if (linear == nullptr || !is_for_tensor_cores(plan_, *linear)) continue;
    for (const WeightId id : linear->weights) {
      const CudaWeights::Matrix& matrix = weights_.matrix(id);
      if (is_quantized(matrix.dtype) || is_gate_and_up(*linear))
        measure_matrix({stream.get()}, matrix.dtype, matrix.view, sizes.data() + static_cast<size_t>(id));
    }
  }
  stream.to_host(host.data(), sizes.data(), host.size());
  stream.synchronize();
  std::vector<WeightSize> all;
  for (size_t i = 0; i < host.size(); ++i) {
    const auto squares = std::bit_cast<float>(host[i].row_squares), largest = std::bit_cast<float>(host[i].weight);
    const bool is_rounded = is_quantized(plan_.weights[i].dtype);
    all.push_back({std::isfinite(squares) ? std::sqrt(squares) : INFINITY, is_rounded ? scale_of(largest) : 1.0f});
  }
  return all;
}

HalfRows TensorCores::Buffer::of(int32_t cols, int32_t tile_rows) {
  return {units.data(), scale.data(), half_units(cols), tile_rows};
}

Tiling TensorCores::tiling_of(const KernelStream& stream, const Product& product, int32_t n) const {
  return choose_tiling(shape_of(plan_, product, n), stream.n_multiprocessors,
                       stream.has_wgmma ? kTileRows : kMmaTileRows);
}

TensorLinearArgs TensorCores::args_of(const Product& product, int32_t n, const Tiling& tiling) {
  const Linear& op = *product.op;
  TensorLinearArgs args;
  int32_t column = 0;
  for (size_t i = 0; i < op.weights.size(); ++i) {
    const CudaWeights::Matrix& matrix = weights_.matrix(op.weights[i]);
    const MatrixView& w = matrix.view;
    args.parts[args.n_parts++] = {
        {w, op.biases.empty() ? nullptr : weights_.vector(op.biases[i]), args.n_groups, column},
        matrix.dtype,
        size_of(op.weights[i]).scale};
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

void TensorCores::multiply(const KernelStream& stream, const TensorLinearArgs& args) {
  (stream.has_wgmma ? linear_on_tensor_cores : linear_with_mma)(stream, args);
  if (args.leaves_shares) left_ = {partial_.data(), args.n_shares};
}

void TensorCores::multiply(const KernelStream& stream, const Product& product, const InputRows& in, int32_t n,
                           float* y) {
  const Tiling tiling = tiling_of(stream, product, n);
  TensorLinearArgs args = args_of(product, n, tiling);
  args.x = rows_.of(in.cols, tiling.rows);
  args.y = y;
  half_rows(stream, dtype_of(*product.op), in, n, args.x, {}, std::exchange(left_, {}));
  multiply(stream, args);
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
  multiply(stream, args);
}

void TensorCores::multiply_gate_and_up(const KernelStream& stream, const Linear& op, const InputRows& in, int32_t n,
                                       const Product& down) {
  const Tiling tiling = tiling_of(stream, {&op}, n);
  TensorLinearArgs args = args_of({&op}, n, tiling);
  args.x = rows_.of(in.cols, tiling.rows);
  args.gated = gated_.of(args.parts[0].w.rows, tiling_of(stream, down, n).rows);
  half_rows(stream, dtype_of(op), in, n, args.x,
            {args.gated.scale, size_of(op.weights[0]).row_norm * size_of(op.weights[1]).row_norm},
            std::exchange(left_, {}));
  multiply(stream, args);
}

void TensorCores::multiply_gated(const KernelStream& stream, const Product& down, int32_t n, float* y) {
  const Tiling tiling = tiling_of(stream, down, n);
  TensorLinearArgs args = args_of(down, n, tiling);
  args.x = gated_.of(args.parts[0].w.cols, tiling.rows);
  args.y = y;
  multiply(stream, args);
}

}  // namespace llorch::cuda
