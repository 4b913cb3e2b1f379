// How weights come from their source onto the device.
//
// Threads copy pieces of tensors into pinned memory, two buffers each in turn. From there a stream of each thread takes
// them to the device and makes groups of them (relayout.cu), while the thread reads the next piece.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/weight_layout.h"

namespace llorch::cuda {

// Fills memory, that of layout, on the current device. The source is called by this thread alone.
void load_weights(int device, const Plan& plan, const WeightSource& source, const WeightLayout& layout,
                  std::byte* memory);

// Bytes that this takes of pinned memory, and as many of the device's, until it returns.
size_t load_buffer_bytes(const Plan& plan);

}  // namespace llorch::cuda
