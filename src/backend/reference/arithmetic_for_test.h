// What the tests of the reference's arithmetic share: the unit of rounding, and random floats.
#pragma once

#include <gtest/gtest.h>

#include <random>

#include "backend/reference/arithmetic.h"

namespace llorch::reference {
inline constexpr double kU = 0x1p-24;  // half an ulp of 1: the relative error of one rounding
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Relative error of n roundings one after another (Higham's gamma).
inline double gamma(double n) { return n * kU / (1.0 - n * kU); }

class Arithmetic : public ::testing::Test {
 protected:
  std::vector<float> normals(int n, float scale = 1.0f) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = normal_(engine_) * scale;
    return values;
  }
  uint8_t byte() { return static_cast<uint8_t>(engine_()); }

 private:
  std::mt19937_64 engine_{1};
  std::normal_distribution<float> normal_;
};

}  // namespace llorch::reference
