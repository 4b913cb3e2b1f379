#include "backend/cuda/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <thread>

#include "backend/cuda/memory.h"
#include "backend/cuda/piece_queue.h"
#include "backend/open_weight.h"

namespace llorch::cuda {
namespace {

// A thread copies 5 to 7 GB/s out of the page cache (docs/performance.md), the bus takes about 50.
constexpr size_t kMaxThreads = 8;
// Of one of a thread's two buffers: long enough for the bus, and all of them together stay in the caches.
constexpr size_t kBufferBytes = size_t{2} << 20;
constexpr size_t kBuffers = 2;

size_t group_bytes(const Weight& w) { return kGroup * row_bytes(w.dtype, w.shape.back()); }

// How the weights of a plan are cut, and among how many threads.
struct Cut {
  explicit Cut(const Plan& plan) {
    size_t largest = 0, largest_part = 1;
    for (const Weight& w : plan.weights) {
      largest = std::max(largest, file_bytes(w));
      largest_part = std::max(largest_part,
                              w.shape.size() == 1 ? static_cast<size_t>(w.shape[0]) * sizeof(float) : group_bytes(w));
    }
    buffer_bytes = std::max(std::min(largest, kBufferBytes), largest_part);
    size_t n_pieces = 0;
    for (const Weight& w : plan.weights) n_pieces += pieces(w);
    const size_t processors = std::max(1u, std::thread::hardware_concurrency());
    n_threads = std::max<size_t>(1, std::min({kMaxThreads, processors, n_pieces}));
  }

  int32_t groups_at_once(const Weight& w) const { return static_cast<int32_t>(buffer_bytes / group_bytes(w)); }
  size_t pieces(const Weight& w) const {
    if (w.shape.size() == 1) return 1;
    return static_cast<size_t>(divide_up(divide_up(w.shape[0], kGroup), groups_at_once(w)));
  }

  size_t buffer_bytes = 0, n_threads = 1;
};

// One thread's way to the device.
class Lane {
 public:
  Lane(const Plan& plan, const WeightLayout& layout, std::byte* memory, size_t buffer_bytes)
      : plan_(plan),
        layout_(layout),
        memory_(memory),
        buffer_bytes_(buffer_bytes),
        host_(kWeightMemory, kBuffers * buffer_bytes),
        device_(kWeightMemory, kBuffers * buffer_bytes) {}

  // Returns when the bytes are in pinned memory or beyond: was_read() is told so.
  void send(const Piece& piece, PieceQueue& queue) {
    Event& free = free_[next_];
    std::byte* const host = host_.data() + next_ * buffer_bytes_;
    std::byte* const raw = device_.data() + next_ * buffer_bytes_;
    next_ = (next_ + 1) % kBuffers;
    free.wait();
    const Weight& weight = plan_.weights[piece.weight];
    const WeightPlace& place = layout_.places[piece.weight];
    if (weight.shape.size() == 1) {
      auto* values = reinterpret_cast<float*>(host);
      llorch::read_row(*piece.tensor, 0, values);
      queue.was_read(piece);
      stream_.to_device(reinterpret_cast<float*>(memory_ + place.units), values, static_cast<size_t>(weight.shape[0]));
    } else {
      const std::span<const std::byte> all = piece.tensor->bytes;
      const size_t begin = static_cast<size_t>(piece.first_group) * group_bytes(weight);
      const size_t n = std::min(static_cast<size_t>(piece.n_groups) * group_bytes(weight), all.size() - begin);
      std::memcpy(host, all.data() + begin, n);
      queue.was_read(piece);
      stream_.to_device(raw, host, n);
      relayout({stream_.get()}, weight.dtype, raw, matrix_at(memory_, weight, place), piece.first_group,
               piece.n_groups);
    }
    free.record(stream_);
  }

  void finish() const { stream_.synchronize(); }

 private:
  const Plan& plan_;
  const WeightLayout& layout_;
  std::byte* const memory_;
  const size_t buffer_bytes_;
  const Stream stream_;
  PinnedArray<std::byte> host_;
  DeviceArray<std::byte> device_;
  Event free_[kBuffers];  // the device is done with both halves of a buffer
  size_t next_ = 0;
};

// A weight whose pieces are in the queue or being read.
struct OpenWeight {
  size_t weight;
  Tensor tensor;
};

// Opens weight after weight, as many at once as the source allows, and closes each when it was read. Those still
// `open` when it fails or is abandoned are being read by the threads: they must live until these have ended.
void feed(const Plan& plan, const WeightSource& source, const Cut& cut, std::deque<OpenWeight>& open,
          PieceQueue& queue) {
  const auto close_oldest = [&] {
    if (!queue.wait_until_read(open.front().weight)) return false;
    source.close(open.front().tensor);
    open.pop_front();
    return true;
  };
  for (size_t i = 0; i < plan.weights.size(); ++i) {
    const Weight& w = plan.weights[i];
    if (open.size() >= source.max_open && !close_oldest()) return;
    open.push_back({i, open_weight(source, w)});
    const Tensor* tensor = &open.back().tensor;
    std::vector<Piece> pieces;
    if (w.shape.size() == 1) {
      pieces.push_back({i, tensor});
    } else {
      const int32_t n_groups = divide_up(w.shape[0], kGroup), step = cut.groups_at_once(w);
      for (int32_t g = 0; g < n_groups; g += step) pieces.push_back({i, tensor, g, std::min(step, n_groups - g)});
    }
    queue.put(i, pieces);
  }
  queue.end();
  while (!open.empty() && close_oldest()) {
  }
}

}  // namespace

size_t load_buffer_bytes(const Plan& plan) {
  const Cut cut(plan);
  return cut.n_threads * kBuffers * cut.buffer_bytes;
}

void load_weights(int device, const Plan& plan, const WeightSource& source, const WeightLayout& layout,
                  std::byte* memory) {
  {
    const Stream stream;
    for (size_t i = 0; i < plan.weights.size(); ++i)
      if (has_padding(plan.weights[i])) stream.fill_bytes(memory + layout.places[i].units, 0, layout.places[i].bytes());
    stream.synchronize();
  }
  const Cut cut(plan);
  PieceQueue queue(plan.weights.size());
  std::deque<OpenWeight> open;
  std::vector<std::future<void>> threads;  // its end waits for them, so it comes after what they read
  try {
    for (size_t t = 0; t < cut.n_threads; ++t)
      threads.push_back(std::async(std::launch::async, [&] {
        try {
          use_device(device);
          Lane lane(plan, layout, memory, cut.buffer_bytes);
          while (const std::optional<Piece> piece = queue.take()) lane.send(*piece, queue);
          lane.finish();
        } catch (...) {
          queue.abandon();
          throw;
        }
      }));
    feed(plan, source, cut, open, queue);
  } catch (...) {
    queue.abandon();
    throw;
  }
  for (std::future<void>& thread : threads) thread.get();
}

}  // namespace llorch::cuda
