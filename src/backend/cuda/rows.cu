// Kernels on single rows: RMSNorm, gated activation, packing, gathering, rotation and appending to the KV pages. One
// block a row.
#include "backend/cuda/kv_pages.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"
#include "backend/cuda/rope.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 256;

// inverse_norm() of the block's row where it is asked for; every thread gets it.
__device__ float block_inverse(const InputRows& in, int row) {
  if (in.prepare != Prepare::kRmsNorm) return 0.0f;
  auto* shared = reinterpret_cast<float*>(shared_memory());
  if (warp_id() == 0) {
    const float inverse = inverse_norm(in.x + size_t(row) * in.stride, in.cols, in.eps);
    if (lane_id() == 0) *shared = inverse;
  }
  __syncthreads();
  return *shared;
}

__global__ void __launch_bounds__(kThreads) prepare_kernel(InputRows in, float* y) {
  wait_for_inputs();
  const int row = static_cast<int>(blockIdx.x);
  const float inverse = block_inverse(in, row);
  for (int k0 = warp_id() * kSegment; k0 < in.cols; k0 += n_warps() * kSegment) {
    LaneValues values;
    prepare(in, row, k0, in.cols - k0, inverse, values);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int k = k0 + i * kWarp + lane_id();
      if (k < in.cols) y[size_t(row) * in.cols + k] = values[i];
    }
  }
}

__global__ void __launch_bounds__(kThreads) pack_kernel(InputRows in, PackedRows out) {
  wait_for_inputs();
  const int row = static_cast<int>(blockIdx.x);
  const float inverse = block_inverse(in, row);
  const int n_blocks = in.cols / kQuantBlock;
  for (int k0 = warp_id() * kSegment; k0 < in.cols; k0 += n_warps() * kSegment) {
    LaneValues values;
    prepare(in, row, k0, in.cols - k0, inverse, values);
    const Quantized v = quantize(values);
    const size_t first = size_t(row) * n_blocks + k0 / kQuantBlock;  // block
#pragma unroll
    for (int b = 0; b < kOfLane; ++b) {
      if (k0 / kQuantBlock + b < n_blocks) out.q[(first + b) * kQuantBlock + lane_id()] = static_cast<int16_t>(v.q[b]);
    }
    if (lane_id() < kOfLane && k0 / kQuantBlock + lane_id() < n_blocks) {
      out.d[first + lane_id()] = v.d;
      out.sums[first + lane_id()] = v.sum;
    }
  }
}

__global__ void gather_kernel(const float* x, const uint32_t* rows, int32_t width, float* y) {
  wait_for_inputs();
  const float* from = x + size_t{rows[blockIdx.x]} * width;
  for (int k = static_cast<int>(threadIdx.x); k < width; k += static_cast<int>(blockDim.x))
    y[size_t{blockIdx.x} * width + k] = from[k];
}

__global__ void __launch_bounds__(kThreads) rope_append_kernel(RopeArgs a) {
  wait_for_inputs();
  const int row = static_cast<int>(blockIdx.x), head_dim = a.kv.head_dim, half = head_dim / 2;
  const uint32_t position = a.batch.positions[row];
  const uint32_t page = a.batch.pages[a.batch.tables[row] + (position >> a.kv.page_shift)];
  const int in_page = static_cast<int>(position & ((1u << a.kv.page_shift) - 1));
  const float* cos = a.cos + size_t{position} * half;
  const float* sin = a.sin + size_t{position} * half;
  float* qkv = a.qkv + size_t(row) * (a.kv.n_heads + 2 * a.kv.n_kv_heads) * head_dim;
  std::byte* heads = a.kv.memory + size_t{page} * a.kv.page_bytes;
  const int n_rotated = a.kv.n_heads + a.kv.n_kv_heads;
  for (int i = a.first_head * half + static_cast<int>(threadIdx.x); i < n_rotated * half;
       i += static_cast<int>(blockDim.x)) {
    const int head = i / half, pair = i % half;
    const Pair d = pair_of(a.pairs, half, pair);
    float* x = qkv + size_t(head) * head_dim;
    float first = x[d.first], second = x[d.second];
    rotate(first, second, cos[pair], sin[pair]);
    x[d.first] = first;
    x[d.second] = second;
    if (head < a.kv.n_heads || a.kv.dtype == DType::kQ8_0) continue;
    std::byte* keys = heads + size_t(head - a.kv.n_heads) * 2 * a.kv.half_bytes;
    store_key(a.kv, keys, in_page, d.first, first);
    store_key(a.kv, keys, in_page, d.second, second);
  }
  const float* v = qkv + size_t(n_rotated) * head_dim;
  if (a.kv.dtype == DType::kQ8_0) {
    __syncthreads();  // rotation may have pairs across blocks
    const int n_blocks = divide_up(head_dim, kKvBlockSize);
    for (int i = warp_id(); i < a.kv.n_kv_heads * n_blocks; i += n_warps()) {
      const int head = i / n_blocks;
      append_q8(a.kv, heads + size_t(head) * 2 * a.kv.half_bytes, in_page, i % n_blocks * kKvBlockSize,
                qkv + size_t(a.kv.n_heads + head) * head_dim, v + size_t(head) * head_dim);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < a.kv.n_kv_heads * head_dim; i += static_cast<int>(blockDim.x))
    store_value(a.kv, heads + size_t(i / head_dim) * 2 * a.kv.half_bytes + a.kv.half_bytes, in_page, i % head_dim,
                v[i]);
}

Shape one_block_a_row(int32_t n) { return {dim3(static_cast<unsigned>(n)), kThreads, sizeof(float)}; }

}  // namespace

void prepare_rows(const KernelStream& stream, const InputRows& in, int32_t n, float* y) {
  launch(stream, one_block_a_row(n), prepare_kernel, in, y);
}
void pack_rows(const KernelStream& stream, const InputRows& in, int32_t n, const PackedRows& out) {
  launch(stream, one_block_a_row(n), pack_kernel, in, out);
}
void gather_rows(const KernelStream& stream, const float* x, const uint32_t* rows, int32_t n, int32_t width, float* y) {
  launch(stream, one_block_a_row(n), gather_kernel, x, rows, width, y);
}
void rope_append(const KernelStream& stream, const RopeArgs& args, int32_t n) {
  Shape shape = one_block_a_row(n);
  // Few pairs: blocks of fewer threads, so that more rows are under way at once.
  const int pairs = (args.kv.n_heads + args.kv.n_kv_heads - args.first_head) * args.kv.head_dim / 2;
  if (pairs < kThreads) shape.block = dim3(static_cast<unsigned>(divide_up(pairs, kWarp) * kWarp));
  launch(stream, shape, rope_append_kernel, args);
}

}  // namespace llorch::cuda
