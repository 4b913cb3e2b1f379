// exp, log, sin and cos in double from IEEE operations only: the same bits with every C library. Used for tables made
// once on the host (RoPE), so clarity comes before speed.
#pragma once

namespace llorch::exact {

// Within 2 ulp for |x| < 700.
double exp(double x);

// Natural logarithm of a normal positive x, within 2 ulp of max(|log x|, 2^-10).
double log(double x);

// base^exponent for base > 0, relative error below 1e-13 where the result is normal.
inline double pow(double base, double exponent) { return exact::exp(exponent * exact::log(base)); }

// Absolute error below 1e-15 for |x| < 2^24.
double sin(double x);
double cos(double x);

}  // namespace llorch::exact
