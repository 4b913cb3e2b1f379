#include "backend/cuda/weight_layout.h"

namespace llorch::cuda {
namespace {

constexpr size_t kAlign = 256;  // of cudaMalloc

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace

WeightLayout::WeightLayout(const Plan& plan) {
  const auto take = [this](size_t n) {
    const size_t at = bytes;
    bytes += aligned(n);
    return at;
  };
  for (const Weight& w : plan.weights) {
    WeightPlace place;
    if (w.shape.size() == 1) {
      place.units = take(static_cast<size_t>(w.shape[0]) * sizeof(float));
    } else {
      const RowLayout row = row_layout(w.dtype, static_cast<int32_t>(w.shape[1]));
      const size_t lanes = static_cast<size_t>(divide_up(w.shape[0], kGroup)) * kGroup;
      const auto segments = static_cast<size_t>(row.segments);
      place.units = take(lanes * static_cast<size_t>(row.units_per_row) * sizeof(uint4));
      place.highs = take(lanes * segments * static_cast<size_t>(row.high_units) * sizeof(uint4));
      place.scales = take(lanes * segments * static_cast<size_t>(row.scale_units) * sizeof(uint4));
      place.d = take(row.has_d ? lanes * segments * sizeof(uint16_t) : 0);
    }
    place.end = bytes;
    places.push_back(place);
  }
}

MatrixView matrix_at(std::byte* memory, const Weight& weight, const WeightPlace& place) {
  const auto rows = static_cast<int32_t>(weight.shape[0]), cols = static_cast<int32_t>(weight.shape[1]);
  const RowLayout row = row_layout(weight.dtype, cols);
  const auto units = [memory](size_t at, bool exists) {
    return exists ? reinterpret_cast<uint4*>(memory + at) : nullptr;
  };
  return {units(place.units, true),
          units(place.highs, row.high_units > 0),
          units(place.scales, row.scale_units > 0),
          row.has_d ? reinterpret_cast<uint16_t*>(memory + place.d) : nullptr,
          rows,
          cols,
          row.units_per_row,
          row.segments};
}

bool has_padding(const Weight& weight) {
  return weight.shape.size() == 2 && is_quantized(weight.dtype) &&
         (weight.shape[0] % kGroup != 0 || weight.shape[1] % kSegment != 0);
}

}  // namespace llorch::cuda
