#include "backend/cuda/weights.h"

#include "backend/cuda/weight_layout.h"
#include "backend/cuda/weight_loader.h"

namespace llorch::cuda {

CudaWeights::CudaWeights(int device, const Plan& plan, const WeightSource& source) : device_(device) {
  use_device(device_);
  const WeightLayout layout(plan);
  memory_ = DeviceArray<std::byte>(kWeightMemory, layout.bytes);
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Weight& w = plan.weights[i];
    std::byte* const at = memory_.data() + layout.places[i].units;
    const bool is_vector = w.shape.size() == 1;
    vectors_.push_back(is_vector ? std::span(reinterpret_cast<const float*>(at), static_cast<size_t>(w.shape[0]))
                                 : std::span<const float>());
    matrices_.push_back(is_vector ? Matrix{} : Matrix{w.dtype, matrix_at(memory_.data(), w, layout.places[i])});
  }
  load_weights(device_, plan, source, layout, memory_.data());
}

void CudaWeights::read_row(WeightId id, int64_t row, float* out) const {
  use_device(device_);
  const Stream stream;
  const auto index = static_cast<size_t>(id);
  if (!vectors_[index].empty()) {
    stream.to_host(out, vectors_[index].data(), vectors_[index].size());
    stream.synchronize();
    return;
  }
  const Matrix& m = matrices_[index];
  LLORCH_CHECK(row >= 0 && row < m.view.rows, "row {} of {}", row, m.view.rows);
  const auto token = static_cast<int32_t>(row);
  DeviceArray<int32_t> tokens(kActivationMemory, 1);
  DeviceArray<float> values(kActivationMemory, static_cast<size_t>(m.view.cols));
  stream.to_device(tokens.data(), &token, 1);
  embed({stream.get()}, m.dtype, m.view, {tokens.data(), nullptr}, 1, 1.0f, values.data());
  stream.to_host(out, values.data(), values.size());
  stream.synchronize();
}

}  // namespace llorch::cuda
