// The weight of a logit (step 4 of sampling/sample_token.h), with the division's reciprocal made once: for kernels.
#pragma once

#include "base/exp.h"
#include "base/host_device.h"

namespace llorch::cuda {

// d -> the bits of sampling_detail::weight_of(d, 0, temperature) for d <= 0, also -infinity; temperature > 0, finite.
//
// A division is a branch and 20 instructions on a device. Of a quotient that is off by less than its last bit, and a
// reciprocal that is correctly rounded, one more step makes the correctly rounded quotient (P. Markstein, "Computation
// of elementary functions on the IBM RISC System/6000 processor", 1990), if no remainder underflows. So dividend and
// divisor are scaled by a power of two; what underflows then is a dividend whose exp is 1 whatever its last bits are.
class Weigher {
 public:
  LLORCH_HD explicit Weigher(float temperature)
      : scale_(temperature < 0x1p-32f  ? 0x1p96f
               : temperature > 0x1p32f ? 0x1p-64f
                                       : 1.0f),
        divisor_(temperature * scale_),
        reciprocal_(1.0f / divisor_),
        least_(-32.0f * divisor_) {}

  LLORCH_HD uint64_t operator()(float d) const {
    d *= scale_;
    d = d < least_ ? least_ : d;  // exp(-32) * 2^40 is 0, as from -28 on
    float q = d * reciprocal_;
    q = fmaf(fmaf(-q, divisor_, d), reciprocal_, q);
    q = fmaf(fmaf(-q, divisor_, d), reciprocal_, q);
    return static_cast<uint64_t>(exp_f32(q) * 0x1p40f);
  }

 private:
  float scale_, divisor_, reciprocal_, least_;
};

}  // namespace llorch::cuda
