#include "base/exact_math.h"

#include <bit>
#include <cstdint>

namespace llorch::exact {
namespace {

constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer, nearest even

double round_to_integer(double x) { return (x + kRound) - kRound; }

double power_of_two(int n) { return std::bit_cast<double>(static_cast<uint64_t>(n + 1023) << 52); }

// x - n * pi/2 for n = round(x / (pi/2)): pi/2 in three parts, the first two of 33 bits so that n times them is exact.
double reduce(double x, int64_t& n) {
  const double rounded = round_to_integer(x * 0.63661977236758134308);
  n = static_cast<int64_t>(rounded);
  double r = x - rounded * 1.57079632673412561417e+00;
  r = r - rounded * 6.07710050630396597660e-11;
  return r - rounded * 2.02226624879595063154e-21;
}

// Taylor series on |r| <= pi/4; the first term left out is below 1e-17.
double sin_series(double r) {
  double term = r, sum = 0.0, terms[9];
  for (int i = 0; i < 9; ++i) {
    terms[i] = term;
    term = -term * r * r / ((2.0 * i + 2.0) * (2.0 * i + 3.0));
  }
  for (int i = 8; i >= 0; --i) sum += terms[i];
  return sum;
}

double cos_series(double r) {
  double term = 1.0, sum = 0.0, terms[10];
  for (int i = 0; i < 10; ++i) {
    terms[i] = term;
    term = -term * r * r / ((2.0 * i + 1.0) * (2.0 * i + 2.0));
  }
  for (int i = 9; i >= 0; --i) sum += terms[i];
  return sum;
}

}  // namespace

double exp(double x) {
  const double n = round_to_integer(x * 1.44269504088896340736);
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;  // ln 2 in two parts
  double sum = 0.0;
  for (int i = 18; i >= 1; --i) sum = (sum + 1.0) * r / i;  // Horner of the Taylor series without its 1
  return (sum + 1.0) * power_of_two(static_cast<int>(n));
}

double log(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.41421356237309504880) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;  // log m = 2 atanh s
  double sum = 0.0;
  for (int i = 25; i >= 3; i -= 2) sum = (sum + 1.0 / i) * s2;
  const double tail = 2.0 * s * sum + exponent * 1.90821492927058770002e-10;
  return exponent * 6.93147180369123816490e-01 + (2.0 * s + tail);
}

double sin(double x) {
  int64_t n;
  const double r = reduce(x, n);
  const double value = (n & 1) != 0 ? cos_series(r) : sin_series(r);
  return (n & 2) != 0 ? -value : value;
}

double cos(double x) {
  int64_t n;
  const double r = reduce(x, n);
  const double value = (n & 1) != 0 ? sin_series(r) : cos_series(r);
  return ((n + 1) & 2) != 0 ? -value : value;
}

}  // namespace llorch::exact
