// Weights in device memory: matrices in groups of 32 rows (codes.h), vectors as float.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"

namespace llorch::cuda {

class CudaWeights final : public PlacedWeights {
 public:
  CudaWeights(int device, const Plan& plan, const WeightSource& source);

  size_t bytes() const override { return memory_.bytes(); }
  void read_row(WeightId id, int64_t row, float* out) const override;

  struct Matrix {
    DType dtype = DType::kF32;
    MatrixView view;
  };
  const Matrix& matrix(WeightId id) const { return matrices_[static_cast<size_t>(id)]; }
  // From a matrix on, with what lies behind it: weights lie in the order in which the plan names them.
  std::span<const std::byte> from(WeightId id) const {
    const auto* at = reinterpret_cast<const std::byte*>(matrix(id).view.units);
    return {at, memory_.data() + memory_.size()};
  }
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].data(); }

 private:
  const int device_;
  DeviceArray<std::byte> memory_;                // of all; weight_layout.h
  std::vector<Matrix> matrices_;                 // [weights]; empty for vectors
  std::vector<std::span<const float>> vectors_;  // [weights]; empty for matrices
};

}  // namespace llorch::cuda
