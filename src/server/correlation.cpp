// Ids from the system's random source, by a call that costs below a microsecond: std::random_device asks the CPU what
// it can do each time, which a virtual machine answers in 20.
#include "server/correlation.h"

#include <fmt/format.h>
#include <unistd.h>
#ifdef __APPLE__
#include <sys/random.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace llorch {

std::string random_uuid() {
  uint32_t words[4];
  if (getentropy(words, sizeof words) != 0) fail("the system gives no random bytes: {}", std::strerror(errno));
  const auto [a, b, c, d] = words;
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", a, b >> 16, b & 0xFFF, 0x8000 | (c >> 16 & 0x3FFF),
                     c & 0xFFFF, d);
}

std::string correlation_id(std::string_view header) {
  const bool good = !header.empty() && header.size() <= 128 &&
                    std::all_of(header.begin(), header.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  return good ? std::string(header) : random_uuid();
}

}  // namespace llorch
