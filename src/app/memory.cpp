// Memory of the system, and the arithmetic of KV pages.
#include "app/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "app/commands.h"

#ifdef __APPLE__
#include <mach/mach.h>
#endif

namespace llorch {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDefaultPositions = 8 * 1024;

#ifndef __APPLE__
// A number in the file's first word; nothing said ("max", no file): no limit.
uint64_t read_limit(const char* path) {
  std::ifstream file(path);
  uint64_t value = 0;
  return file >> value ? value : std::numeric_limits<uint64_t>::max();
}
#endif

uint64_t pages_of(uint64_t positions, const KvWish& wish) { return (positions + wish.page_size - 1) / wish.page_size; }

}  // namespace

uint64_t available_memory_bytes() {
#ifdef __APPLE__
  vm_statistics64_data_t stats{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&stats), &count) != 0) {
    fail("the system does not say how much memory is free");
  }
  return (uint64_t{stats.free_count} + stats.inactive_count + stats.purgeable_count) * vm_kernel_page_size;
#else
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.rfind("MemAvailable:", 0) == 0) available = std::stoull(line.substr(13)) * 1024;
  }
  if (available == 0) fail("/proc/meminfo does not say how much memory is available");
  const uint64_t limit = read_limit("/sys/fs/cgroup/memory.max");
  const uint64_t used = read_limit("/sys/fs/cgroup/memory.current");
  return limit > used ? std::min(available, limit - used) : available;
#endif
}

KvBudget choose_kv_budget(const KvWish& wish) {
  const uint64_t allowed_bytes = wish.kv_memory != 0 ? wish.kv_memory : wish.room_bytes;
  const uint64_t allowed_pages = allowed_bytes / wish.page_bytes;
  const uint64_t context =
      wish.context != 0 ? wish.context : std::min<uint64_t>(wish.model_context, allowed_pages * wish.page_size);
  const uint64_t context_pages = std::max<uint64_t>(1, pages_of(context, wish));
  if (context_pages > allowed_pages) {
    throw InputError(
        fmt::format("KV pages: one sequence of {} positions needs {:.1f} MiB, but {} {:.1f} MiB; lower --ctx or {}",
                    std::max<uint64_t>(context, 1), static_cast<double>(context_pages * wish.page_bytes) / kMiB,
                    wish.kv_memory != 0 ? "--kv-memory allows" : wish.room, static_cast<double>(allowed_bytes) / kMiB,
                    wish.kv_memory != 0 ? "give more --kv-memory" : wish.remedy),
        ErrorCode::kOutOfPages);
  }
  const uint64_t enough = wish.n_sequences != 0 ? wish.n_sequences * context_pages
                                                : std::max(context_pages, pages_of(kDefaultPositions, wish));
  const uint64_t pages = wish.kv_memory != 0 ? allowed_pages : std::min(allowed_pages, enough);
  return {static_cast<uint32_t>(context),
          static_cast<uint32_t>(std::min<uint64_t>(pages, UINT32_MAX / wish.page_size))};
}

}  // namespace llorch
