// Fills a Kernels table from the templates. Included by one source file for each instruction set.
#pragma once

#include <utility>

#include "backend/cpu/attention_kernel.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/quant_kernels.h"
#include "backend/cpu/roof_kernels.h"
#include "backend/cpu/row_kernels.h"

namespace llorch::cpu {
namespace {

template <typename L>
constexpr Kernels make_kernels(const char* name) {
  return {
      .name = name,
      .tile_rows = tile_rows<L>,
      .linear = {float_linear<L, WidenF32<L>>, float_linear<L, WidenF16<L>>, float_linear<L, WidenBF16<L>>,
                 quant_linear<L, DType::kQ8_0>, quant_linear<L, DType::kQ4_0>, quant_linear<L, DType::kQ4_1>,
                 quant_linear<L, DType::kQ5_0>, quant_linear<L, DType::kQ5_1>, quant_linear<L, DType::kQ4_K>,
                 quant_linear<L, DType::kQ5_K>, quant_linear<L, DType::kQ6_K>},
      .pack_floats = pack_floats<L>,
      .pack_quantized = pack_quantized<L>,
      .rms_norm = rms_norm<L>,
      .gated_silu = gated_silu<L>,
      .rope_append_f16 = rope_append<L, uint16_t>,
      .rope_append_f32 = rope_append<L, float>,
      .rope_append_q8 = rope_append<L, int8_t>,
      .attention_f16 = attention<L, uint16_t>,
      .attention_f32 = attention<L, float>,
      .attention_q8 = attention<L, int8_t>,
      .read_loops = {read_streams<L, 1>, read_streams<L, 2>, read_streams<L, 4>},
      .fma_loop = fma_loop<L>,
      .fma_lanes = L::kFloatTile * L::kFloatGroups * kGroup,
  };
}

}  // namespace
}  // namespace llorch::cpu
