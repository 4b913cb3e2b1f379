// Kernels on single rows: RMSNorm, gated activation, packing, gathering, rotation and appending to the KV pages. One
// block a row.
#include "backend/cuda/launch.h"
#include "backend/cuda/prepare.h"

namespace llorch::cuda {
namespace {

constexpr int kThreads = 256;

// inverse_norm() of the block's row where it is asked for; every thread gets it.
__device__ float block_inverse(const InputRows& in, int row) {
  if (in.prepare != Prepare::kRmsNorm) return 0.0f;
  auto* shared = reinterpret_cast<float*>(shared_memory());
  if (warp_id() == 0) {
    const float inverse = inverse_norm(in, row);
    if (lane_id() == 0) *shared = inverse;
  }
  __syncthreads();
  return *shared;
}

__global__ void __launch_bounds__(kThreads) prepare_kernel(InputRows in, float* y) {
  wait_for_inputs();
  const int row = static_cast<int>(blockIdx.x);
  const float inverse = block_inverse(in, row);
  for (int k = static_cast<int>(threadIdx.x); k < in.cols; k += static_cast<int>(blockDim.x))
    y[size_t(row) * in.cols + k] = prepared(in, row, k, inverse);
}

__global__ void __launch_bounds__(kThreads) pack_kernel(InputRows in, PackedRows out) {
  wait_for_inputs();
  const int row = static_cast<int>(blockIdx.x);
  const float inverse = block_inverse(in, row);
  const int n_blocks = in.cols / kQuantBlock;
  for (int b = warp_id(); b < n_blocks; b += n_warps()) {
    const int k = b * kQuantBlock + lane_id();
    const Quantized v = quantize(prepared(in, row, k, inverse));
    const int sum = integer_sum(v.q);
    out.q[size_t(row) * in.cols + k] = static_cast<int16_t>(v.q);
    if (lane_id() == 0) {
      out.d[size_t(row) * n_blocks + b] = v.d;
      out.sums[size_t(row) * n_blocks + b] = sum;
    }
  }
}

__global__ void gather_kernel(const float* x, const uint32_t* rows, int32_t width, float* y) {
  wait_for_inputs();
  const float* from = x + size_t{rows[blockIdx.x]} * width;
  for (int k = static_cast<int>(threadIdx.x); k < width; k += static_cast<int>(blockDim.x))
    y[size_t{blockIdx.x} * width + k] = from[k];
}

__device__ void store_key(const RopeArgs& a, std::byte* keys, int in_page, int d, float value) {
  const int page_size = 1 << a.kv.page_shift;
  if (a.kv.is_f16)
    reinterpret_cast<uint16_t*>(keys)[(d / 8 * page_size + in_page) * 8 + d % 8] = f32_to_f16_saturate(value);
  else
    reinterpret_cast<float*>(keys)[(d / 4 * page_size + in_page) * 4 + d % 4] = value;
}

__device__ void store_value(const RopeArgs& a, std::byte* values, int in_page, int d, float value) {
  const int at = in_page * a.kv.head_dim + d;
  if (a.kv.is_f16)
    reinterpret_cast<uint16_t*>(values)[at] = f32_to_f16_saturate(value);
  else
    reinterpret_cast<float*>(values)[at] = value;
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
  for (int i = static_cast<int>(threadIdx.x); i < n_rotated * half; i += static_cast<int>(blockDim.x)) {
    const int head = i / half, pair = i % half;
    const bool interleaved = a.pairs == RopePairs::kInterleaved;
    const int d0 = interleaved ? 2 * pair : pair, d1 = interleaved ? d0 + 1 : d0 + half;
    float* x = qkv + size_t(head) * head_dim;
    const float v0 = x[d0], v1 = x[d1];
    const float r0 = __fmaf_rn(v0, cos[pair], -__fmul_rn(v1, sin[pair]));
    const float r1 = __fmaf_rn(v0, sin[pair], __fmul_rn(v1, cos[pair]));
    x[d0] = r0;
    x[d1] = r1;
    if (head < a.kv.n_heads) continue;
    std::byte* keys = heads + size_t(head - a.kv.n_heads) * 2 * a.kv.half_bytes;
    store_key(a, keys, in_page, d0, r0);
    store_key(a, keys, in_page, d1, r1);
  }
  const float* v = qkv + size_t(n_rotated) * head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < a.kv.n_kv_heads * head_dim; i += static_cast<int>(blockDim.x))
    store_value(a, heads + size_t(i / head_dim) * 2 * a.kv.half_bytes + a.kv.half_bytes, in_page, i % head_dim, v[i]);
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
  launch(stream, one_block_a_row(n), rope_append_kernel, args);
}

}  // namespace llorch::cuda
