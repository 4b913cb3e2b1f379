// Linear of many rows on tensor cores, with weights of 16 bits as they lie (codes.h): a group's stage is one contiguous
// piece of 4 KB, and one warp copies all into the ring.
#include "backend/cuda/tensor_block.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = (kConsumers + 1) * kWarpgroup;
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;  // of 65536 / kThreads = 170

// As many stages as shared memory holds, up to five.
template <int kRows>
using FloatRing = Ring<kRows, (kRows > 64 ? 4 : 5)>;

// What the warp asks for, stage by stage: lane i < 8 a group's weights.
template <int kRows>
class WeightCopies {
 public:
  __device__ WeightCopies(const TensorLinearArgs& a, const Work& work) : a_(a), at_(work) { open(); }

  __device__ bool is_open() const { return at_.is_open(); }
  __device__ void next() {
    if (!at_.next() && is_open()) open();
  }
  // The first says what will come, rows too.
  __device__ void copy(FloatRing<kRows>& ring) const {
    at_.wait_for_place(ring);
    const int slot = at_.place.slot;
    Barrier& full = ring.full[slot];
    if (lane_id() == 0)
      arrive_and_expect(full, static_cast<unsigned>(n_groups_) * kGroupStage + FloatRing<kRows>::kRowStage);
    __syncwarp();
    if (weights_ == nullptr) return;
    const int left = at_.work.n_units - at_.first_unit();
    const unsigned bytes = static_cast<unsigned>((left < kStageUnits ? left : kStageUnits) * kGroup * kUnitBytes);
    unsigned char* to = ring.weights[slot] + lane_id() * kGroupStage;
    copy_bulk(to, weights_ + size_t(at_.first_unit()) * kGroup, bytes, full);
    if (bytes < kGroupStage) copy_bulk(to + bytes, a_.zeros, kGroupStage - bytes, full);
  }

 private:
  __device__ void open() {
    n_groups_ = 0;
    weights_ = nullptr;
    for (int slot = 0; slot < kTileGroups; ++slot) {
      const GroupPlace place = find_group(a_, at_.item.group_tile, slot);
      if (place.part < 0) continue;
      ++n_groups_;
      if (slot == lane_id()) weights_ = a_.parts[place.part].w.units + size_t(place.group) * at_.work.n_units * kGroup;
    }
  }

  const TensorLinearArgs& a_;
  StageCursor<FloatRing<kRows>> at_;
  int n_groups_ = 0;
  const uint4* weights_ = nullptr;  // of the lane's group
};

// Weights are nobody's output: a ring full of them is asked for before anything is waited for. Lane 8 asks for rows.
template <int kRows>
__device__ void copy_stages(const TensorLinearArgs& a, FloatRing<kRows>& ring) {
  const Work work(a, kRows);
  WeightCopies<kRows> weights(a, work);
  StageCursor<FloatRing<kRows>> rows(work);
  for (int i = 0; i < FloatRing<kRows>::kStages && weights.is_open(); ++i, weights.next()) weights.copy(ring);
  wait_for_inputs();
  for (int i = 0; rows.is_open(); ++i, rows.next()) {
    if (i >= FloatRing<kRows>::kStages) {
      weights.copy(ring);
      weights.next();
    }
    if (lane_id() == kTileGroups) rows.copy_rows(a, ring);
  }
}

template <DType kType, int kRows>
__global__ void __launch_bounds__(kThreads, 1) linear_tensor_kernel(const __grid_constant__ TensorLinearArgs a) {
  auto& ring = *reinterpret_cast<FloatRing<kRows>*>(shared_memory());
  ring.begin(1);
  if (warp_id() >= kTileWarps) {
    give_registers<kProducerRegisters>();
    if (warp_id() == kTileWarps) copy_stages<kRows>(a, ring);
  } else {
    take_registers<kConsumerRegisters>();
    multiply_tiles<kType>(a, ring);
  }
}

}  // namespace

void linear_on_tensor_cores(const KernelStream& stream, const TensorLinearArgs& args) {
  const DType dtype = args.parts[0].dtype;
  if (is_quantized(dtype)) return linear_of_blocks_on_tensor_cores(stream, args);
  with_tile_rows(args.x.tile_rows, [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    launch_tiles<FloatRing<kRows>, kThreads>(
        stream, kRows,
        dtype == DType::kBF16 ? linear_tensor_kernel<DType::kBF16, kRows> : linear_tensor_kernel<DType::kF16, kRows>,
        args);
  });
}

}  // namespace llorch::cuda
