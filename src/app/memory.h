// How much memory there is, and how much of it KV pages may take.
#pragma once

#include <cstdint>
#include <string>

namespace llorch {

// Bytes that a process may still allocate: what the system calls available, bounded by the control group's limit.
uint64_t available_memory_bytes();

struct KvBudget {
  uint32_t context = 0;  // positions of one sequence
  uint32_t n_pages = 0;
};

struct KvWish {
  uint64_t page_bytes = 0;
  uint32_t page_size = 0;      // positions
  uint32_t model_context = 0;  // what the model was made for
  uint32_t context = 0;        // --ctx; 0: the model's, or what fits
  uint64_t kv_memory = 0;      // --kv-memory in bytes: taken whole; 0: what fits into room_bytes
  uint64_t room_bytes = 0;
  std::string room;          // where that number comes from: "half of the free memory is"
  std::string remedy;        // what gives more room
  uint32_t n_sequences = 0;  // whose contexts the pages are to hold; 0: one context or 8 x 1024 positions
};

// Throws InputError, with what is needed and what there is, if one sequence of the wanted context does not fit.
KvBudget choose_kv_budget(const KvWish& wish);

}  // namespace llorch
