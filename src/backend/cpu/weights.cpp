// Places a plan's weights in the CPU's layout.
#include "backend/cpu/program.h"
#include "backend/open_weight.h"

namespace llorch::cpu {

size_t placed_bytes(const Weight& w) {
  if (w.shape.size() < 2) return static_cast<size_t>(w.shape[0]) * sizeof(float);
  return (InterleavedMatrix::bytes(w.dtype, w.shape[0], w.shape[1]) + 63) / 64 * 64;
}

CpuWeights::CpuWeights(const Plan& plan, const WeightSource& source, ThreadPool& pool) {
  size_t total = InterleavedMatrix::kPrefetched;
  for (const Weight& weight : plan.weights) total += weight.shape.size() < 2 ? 0 : placed_bytes(weight);
  memory_ = Buffer(total);
  std::byte* next = memory_.data();
  for (const Weight& weight : plan.weights) {
    const Tensor in = open_weight(source, weight);
    matrices_.emplace_back();
    vectors_.emplace_back();
    if (weight.shape.size() == 1) {
      vectors_.back().resize(static_cast<size_t>(in.cols()));
      llorch::read_row(in, 0, vectors_.back().data());
    } else {
      matrices_.back() = std::make_unique<InterleavedMatrix>(weight.dtype, weight.shape[0], weight.shape[1], next);
      next += placed_bytes(weight);
      InterleavedMatrix& matrix = *matrices_.back();
      constexpr int kGroupsPerTask = 16;
      const uint32_t n_tasks = static_cast<uint32_t>((matrix.groups() + kGroupsPerTask - 1) / kGroupsPerTask);
      pool.run({&n_tasks, 1}, [&](size_t, uint32_t task, int) {
        const int first = static_cast<int>(task) * kGroupsPerTask;
        matrix.fill(in, first, std::min(first + kGroupsPerTask, matrix.groups()));
      });
    }
    source.close(in);
  }
}

size_t CpuWeights::bytes() const {
  size_t total = 0;
  for (const auto& matrix : matrices_) total += matrix ? matrix->bytes() : 0;
  for (const auto& vector : vectors_) total += vector.size() * sizeof(float);
  return total;
}

void CpuWeights::read_row(WeightId id, int64_t row, float* out) const {
  const auto index = static_cast<size_t>(id);
  if (matrices_[index])
    matrices_[index]->read_row(row, 1.0f, out);
  else
    std::copy(vectors_[index].begin(), vectors_[index].end(), out);
}

}  // namespace llorch::cpu
