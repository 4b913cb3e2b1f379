#include "backend/open_weight.h"

namespace llorch {

size_t file_bytes(const Weight& weight) {
  const auto rows = static_cast<size_t>(weight.shape.size() < 2 ? 1 : weight.shape[0]);
  return rows * row_bytes(weight.dtype, weight.shape.back());
}

Tensor open_weight(const WeightSource& source, const Weight& weight) {
  Tensor in = source.open(weight);
  const size_t expected = file_bytes(weight);
  if (in.dtype != weight.dtype || in.shape != weight.shape || in.bytes.size() != expected)
    fail("weight {}: expected {} {} in {} bytes, got {} {} in {}", weight.name, to_string(weight.dtype),
         shape_string(weight.shape), expected, to_string(in.dtype), shape_string(in.shape), in.bytes.size());
  return in;
}

}  // namespace llorch
