// Weights in device memory: matrices in groups of 32 rows (codes.h), vectors as float.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/memory.h"

namespace llorch::cuda {

class CudaWeights final : public PlacedWeights {
 public:
  // The file's bytes go through two pinned buffers in turn, and from rows into groups on the device.
  CudaWeights(int device, const Plan& plan, const WeightSource& source);

  size_t bytes() const override;
  void read_row(WeightId id, int64_t row, float* out) const override;

  struct Matrix {
    DType dtype;
    DeviceArray<uint4> units, highs, scales;
    DeviceArray<uint16_t> d;
    MatrixView view;
  };
  const Matrix& matrix(WeightId id) const { return matrices_[static_cast<size_t>(id)]; }
  const float* vector(WeightId id) const { return vectors_[static_cast<size_t>(id)].data(); }

 private:
  const int device_;
  std::vector<Matrix> matrices_;             // [weights]; empty for vectors
  std::vector<DeviceArray<float>> vectors_;  // [weights]; empty for matrices
};

}  // namespace llorch::cuda
