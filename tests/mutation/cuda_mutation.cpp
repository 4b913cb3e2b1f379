// The CUDA backend with its planted bugs, on an emulated device that has several blocks for a tile of attention, which
// come in reverse.
#include "backend/cuda/cuda_backend.h"
#include "subject.h"

namespace llorch {
namespace {

constexpr int kInReverse = 1;
// An emulator has no time for more than a few positions behind a chunk of attention and the largest page; nor, where
// codes and scales are at stake, for more than that behind the smallest page.
constexpr uint32_t kTwoChunks = 70, kTwoPages = 20;

}  // namespace

test::Subject test::make_subject(const std::string& model) {
  const bool is_quantized = model.front() == 'q';  // weights, or keys and values
  return {make_cuda_backend({kInReverse}), is_quantized ? kTwoPages : kTwoChunks};
}

}  // namespace llorch
