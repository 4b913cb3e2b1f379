// What a plan will take of a CUDA device's memory, by the sizes that its allocations have.
#include "backend/cuda/batch_block.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/sampling_block.h"
#include "backend/cuda/scratch.h"
#include "backend/cuda/tensor_cores.h"
#include "backend/cuda/weight_layout.h"
#include "backend/cuda/weight_loader.h"
#include "backend/slots.h"

namespace llorch {
namespace {

// Kernels that are loaded when they are first launched, graphs, and what is lost where allocations begin at 2 MiB. Of
// an H100, 10,000 mixed requests took 8 MiB more than stood there after loading.
constexpr uint64_t kReserve = uint64_t{64} << 20;

}  // namespace

std::vector<MemoryNeed> cuda_memory_needs(const Plan& plan, const CompileOptions& options) {
  const cuda::WeightLayout layout(plan);
  std::vector<size_t> bytes;
  for (const cuda::WeightPlace& place : layout.places) bytes.push_back(place.bytes());
  std::vector<MemoryNeed> needs = weight_needs(plan, bytes);
  const size_t batch = cuda::BatchBlock::bytes(plan, options);
  const size_t sampling = cuda::SamplingBlock::bytes(plan, options);
  const size_t rope = 2 * size_t{plan.rope.context} * plan.rope.half_dim * sizeof(float);
  const size_t logits = size_t{options.max_logit_rows} * plan.slot(plan.logits()).width * sizeof(float);
  needs.push_back({MemoryKind::kActivations, "slots", SlotLayout(plan, options).bytes()});
  needs.push_back({MemoryKind::kActivations, "rotation table", rope});
  needs.push_back(
      {MemoryKind::kActivations, "sums that blocks share, packed rows", cuda::ScratchSizes(plan, options).bytes()});
  if (options.numerics == Numerics::kFast)
    needs.push_back(
        {MemoryKind::kActivations, "rows in 16 bits, shares of sums", cuda::TensorCoreSizes(plan, options).bytes()});
  needs.push_back({MemoryKind::kActivations, "batch", batch});
  needs.push_back({MemoryKind::kActivations, "sampling: histories, penalized logits", sampling});
  needs.push_back({MemoryKind::kKv, "KV pages", uint64_t{options.kv.n_pages} * kv_page_bytes(plan, options.kv)});
  needs.push_back({MemoryKind::kReserve, "reserve for kernels and graphs", kReserve});
  needs.push_back({MemoryKind::kHost, "logits, batch, sampling",
                   logits + 2 * batch + cuda::SamplingBlock::pinned_bytes(plan, options)});
  needs.push_back({MemoryKind::kLoading, "buffers, on the device and pinned", cuda::load_buffer_bytes(plan)});
  return needs;
}

}  // namespace llorch
