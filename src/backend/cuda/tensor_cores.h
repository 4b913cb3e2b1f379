// The part of a program that numeric mode `fast` adds: which products of many rows go to the tensor cores, and the
// 16-bit rows that they read.
#pragma once

#include "backend/cuda/slots.h"
#include "backend/cuda/tensor_kernels.h"
#include "backend/cuda/weights.h"

namespace llorch::cuda {

// Batches of up to so many rows are exact in `fast`, too: they are bound by the reading of weights, not by products.
inline constexpr uint32_t kExactRows = 8;

// What a program has in device memory for them: nothing in `exact`.
struct TensorCoreSizes {
  TensorCoreSizes(const Plan& plan, const CompileOptions& options);
  size_t bytes() const;

  size_t tile_rows = 0;               // rows of the buffers
  size_t units = 0, gated_units = 0;  // of 16 bytes
  size_t zeros = 0;                   // units
  size_t partial = 0, arrivals = 0;   // of shares of K: floats, counters
};

// Whether a product's matrices are of a type and width that the kernels take.
bool is_for_tensor_cores(const Plan& plan, const Linear& op);

class TensorCores {
 public:
  // Room for the products of this plan and so many rows. Waits for the device.
  TensorCores(const Plan& plan, const CudaWeights& weights, const CompileOptions& options, const Stream& stream);

  // Before the first product of a batch: nothing is left of one that failed.
  void begin() { left_ = {}; }

  // feeds_norm: the next call is of the rows of its y, normalized, and may add what is left to be added to them.
  struct Product {
    const Linear* op = nullptr;
    bool feeds_norm = false;
  };
  // y = the product of the rows, as Linear says.
  void multiply(const KernelStream& stream, const Product& product, const InputRows& in, int32_t n, float* y);

  // The same, with the rows that an attention has made: take_from() is called before it.
  void take_from(const KernelStream& stream, AttentionArgs& attention, const Product& product, int32_t n);
  void multiply_given(const KernelStream& stream, const Product& product, int32_t n, float* y);

  // Two products with the gated activation between them, whose rows stay in 16 bits: gate and up, then down.
  void multiply_gate_and_up(const KernelStream& stream, const Linear& op, const InputRows& in, int32_t n,
                            const Product& down);
  void multiply_gated(const KernelStream& stream, const Product& down, int32_t n, float* y);

  size_t bytes() const { return sizes_.bytes(); }

 private:
  struct Buffer {
    DeviceArray<uint4> units;
    DeviceArray<float> scale;
    HalfRows of(int32_t cols, int32_t tile_rows);
  };
  TensorLinearArgs args_of(const Product& product, int32_t n, const Tiling& tiling);
  void multiply(const KernelStream& stream, const TensorLinearArgs& args);
  Tiling tiling_of(const KernelStream& stream, const Product& product, int32_t n) const;
  // Of the rows that it reads.
  DType dtype_of(const Linear& op) const {
    return weights_.matrix(op.weights[0]).dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
  }

  struct WeightSize {
    float row_norm;  // the largest
    float scale;     // TensorPart
  };
  std::vector<WeightSize> measure(const Stream& stream) const;
  const WeightSize& size_of(WeightId id) const { return weight_sizes_[static_cast<size_t>(id)]; }

  const Plan& plan_;
  const CudaWeights& weights_;
  const TensorCoreSizes sizes_;
  Buffer rows_, gated_;
  DeviceArray<uint4> zeros_;
  DeviceArray<float> partial_;
  DeviceArray<unsigned> arrivals_;              // all 0 between two kernels; one that fails takes the device with it
  Shares left_;                                 // by the last product
  const std::vector<WeightSize> weight_sizes_;  // [weights]; row_norm: of gates and ups
};

}  // namespace llorch::cuda
