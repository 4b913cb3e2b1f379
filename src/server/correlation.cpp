// Ids from the system's random source.
#include "server/correlation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <random>

namespace llorch {

std::string random_uuid() {
  std::random_device random;
  const auto word = [&random] { return static_cast<uint32_t>(random()); };
  const uint32_t a = word(), b = word(), c = word(), d = word();
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", a, b >> 16, b & 0xFFF, 0x8000 | (c >> 16 & 0x3FFF),
                     c & 0xFFFF, d);
}

std::string correlation_id(std::string_view header) {
  const bool good = !header.empty() && header.size() <= 128 &&
                    std::all_of(header.begin(), header.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  return good ? std::string(header) : random_uuid();
}

}  // namespace llorch
