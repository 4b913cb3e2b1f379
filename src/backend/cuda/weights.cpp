#include "backend/cuda/weights.h"

#include <algorithm>
#include <cstring>

#include "backend/open_weight.h"

namespace llorch::cuda {
namespace {

constexpr size_t kStageBytes =
    16 << 20;  // of one of the two buffers; a copy of this size takes about half a millisecond

size_t group_bytes(const Weight& w) { return kGroup * row_bytes(w.dtype, w.shape.back()); }

// Two pinned buffers and their twins on the device: while one is copied, the host fills the other.
class Stages {
 public:
  explicit Stages(size_t bytes) : bytes_(bytes) {
    for (Stage& stage : stages_) {
      stage.host = PinnedArray<std::byte>(kWeightMemory, bytes);
      stage.device = DeviceArray<std::byte>(kWeightMemory, bytes);
    }
  }

  size_t bytes() const { return bytes_; }
  const Stream& stream() const { return stream_; }

  // Bytes of the file, then what the device does with them: use(device bytes).
  template <typename Use>
  void send(std::span<const std::byte> bytes, Use use) {
    Stage& stage = stages_[next_];
    next_ = 1 - next_;
    stage.free.wait();
    std::memcpy(stage.host.data(), bytes.data(), bytes.size());
    stream_.to_device(stage.device.data(), stage.host.data(), bytes.size());
    use(stage.device.data());
    stage.free.record(stream_);
  }

 private:
  struct Stage {
    PinnedArray<std::byte> host;
    DeviceArray<std::byte> device;
    Event free;  // the device is done with both
  };
  size_t bytes_;
  Stream stream_;
  Stage stages_[2];
  size_t next_ = 0;
};

// All of it zero, in stream order.
CudaWeights::Matrix allocate_matrix(const Weight& w, const Stream& stream) {
  const auto rows = static_cast<int32_t>(w.shape[0]), cols = static_cast<int32_t>(w.shape[1]);
  const RowLayout layout = row_layout(w.dtype, cols);
  const auto lanes = static_cast<size_t>(divide_up(rows, kGroup)) * kGroup;
  const auto array = [&]<typename T>(T, int32_t n_in_row) {
    DeviceArray<T> a(kWeightMemory, lanes * static_cast<size_t>(n_in_row));
    stream.fill_bytes(a.data(), 0, a.bytes());
    return a;
  };
  CudaWeights::Matrix m{w.dtype,
                        array(uint4{}, layout.units_per_row),
                        array(uint4{}, layout.segments * layout.high_units),
                        array(uint4{}, layout.segments * layout.scale_units),
                        array(uint16_t{}, layout.has_d ? layout.segments : 0),
                        {}};
  m.view = {m.units.data(), m.highs.data(), m.scales.data(),      m.d.data(),
            rows,           cols,           layout.units_per_row, layout.segments};
  return m;
}

void send_matrix(Stages& stages, const Tensor& in, const Weight& weight, const CudaWeights::Matrix& m) {
  const size_t per_group = group_bytes(weight), n_groups = static_cast<size_t>(divide_up(weight.shape[0], kGroup));
  const size_t groups_at_once = stages.bytes() / per_group;
  for (size_t g = 0; g < n_groups; g += groups_at_once) {
    const size_t n = std::min(groups_at_once, n_groups - g);
    const size_t begin = g * per_group;
    stages.send(in.bytes.subspan(begin, std::min(n * per_group, in.bytes.size() - begin)), [&](const std::byte* raw) {
      relayout({stages.stream().get()}, m.dtype, raw, m.view, static_cast<int32_t>(g), static_cast<int32_t>(n));
    });
  }
}

}  // namespace

CudaWeights::CudaWeights(int device, const Plan& plan, const WeightSource& source) : device_(device) {
  use_device(device_);
  size_t largest = 1, largest_group = 1;
  for (const Weight& w : plan.weights) {
    largest = std::max({largest, file_bytes(w), static_cast<size_t>(w.shape.back()) * sizeof(float)});
    if (w.shape.size() == 2) largest_group = std::max(largest_group, group_bytes(w));
  }
  Stages stages(std::max(std::min(largest, kStageBytes), largest_group));
  for (const Weight& weight : plan.weights) {
    const Tensor in = open_weight(source, weight);
    matrices_.emplace_back();
    vectors_.emplace_back();
    if (weight.shape.size() == 1) {
      std::vector<float> values(static_cast<size_t>(in.cols()));
      llorch::read_row(in, 0, values.data());
      vectors_.back() = DeviceArray<float>(kWeightMemory, values.size());
      for (size_t i = 0; i < values.size(); i += stages.bytes() / sizeof(float)) {
        const auto part = std::span(values).subspan(i, std::min(values.size() - i, stages.bytes() / sizeof(float)));
        stages.send(std::as_bytes(part), [&](const std::byte* raw) {
          check(cudaMemcpyAsync(vectors_.back().data() + i, raw, part.size_bytes(), cudaMemcpyDeviceToDevice,
                                stages.stream().get()),
                "a copy failed");
        });
      }
    } else {
      matrices_.back() = allocate_matrix(weight, stages.stream());
      send_matrix(stages, in, weight, matrices_.back());
    }
    source.close(in);  // its bytes are in a pinned buffer or beyond
  }
  stages.stream().synchronize();
}

size_t CudaWeights::bytes() const {
  size_t total = 0;
  for (const Matrix& m : matrices_) total += m.units.bytes() + m.highs.bytes() + m.scales.bytes() + m.d.bytes();
  for (const auto& v : vectors_) total += v.bytes();
  return total;
}

void CudaWeights::read_row(WeightId id, int64_t row, float* out) const {
  use_device(device_);
  const Stream stream;
  const auto index = static_cast<size_t>(id);
  if (vectors_[index].size() > 0) {
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
  embed({stream.get()}, m.dtype, m.view, tokens.data(), 1, 1.0f, values.data());
  stream.to_host(out, values.data(), values.size());
  stream.synchronize();
}

}  // namespace llorch::cuda
