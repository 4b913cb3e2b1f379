#include "app/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/self_test.h"

namespace llorch {
namespace {

// Rows of one batch in fast: products of fewer leave most of a large GPU idle.
constexpr uint32_t kFastRows = 2048;

constexpr double kShareOfSystem = 0.5;       // of what is free: the rest is for everybody else
constexpr double kDefaultUtilization = 0.9;  // of a device's memory

double utilization(const LoadOptions& options) {
  return options.gpu_memory_utilization != 0.0 ? options.gpu_memory_utilization : kDefaultUtilization;
}

// What KV pages may take beside `fixed`, which fits.
KvWish wish_for(const LoadOptions& options, const MemoryPlace& place, uint64_t fixed) {
  KvWish wish;
  if (!place.memory) {
    wish.room_bytes = UINT64_MAX;
    wish.n_sequences = 1;
  } else if (place.is_system) {
    wish.room_bytes = static_cast<uint64_t>(kShareOfSystem * static_cast<double>(place.memory->free - fixed));
    wish.room = "half of the free memory is";
    wish.remedy = "give more --kv-memory";
  } else {
    const auto all = static_cast<uint64_t>(utilization(options) * static_cast<double>(place.memory->total));
    const uint64_t taken = place.memory->total - place.memory->free + fixed;
    wish.room_bytes = all - std::min(all, taken);
    wish.room = fmt::format("--gpu-memory-utilization {} leaves", utilization(options));
    wish.remedy = "raise --gpu-memory-utilization";
    wish.n_sequences = options.max_sequences;
  }
  return wish;
}

std::string_view name_of(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kWeights:
      return "weights";
    case MemoryKind::kKv:
      return "KV pages";
    case MemoryKind::kActivations:
      return "activations";
    case MemoryKind::kReserve:
      return "reserve";
    case MemoryKind::kHost:
      return "pinned host memory";
    case MemoryKind::kLoading:
      return "while loading";
  }
  return "";
}

std::string line(const std::string& what, uint64_t bytes, const std::string& note = "") {
  return fmt::format("  {:<46}{:>16} {:>12.1f} MB{}\n", what, bytes, static_cast<double>(bytes) / 1e6,
                     note.empty() ? "" : "  " + note);
}

}  // namespace

MemoryPlace place_of(const Backend& backend) {
  MemoryPlace place;
  place.backend = backend.info();
  place.needs = [&backend](const Plan& plan, const CompileOptions& options) {
    return backend.memory_needs(plan, options);
  };
  place.memory = backend.memory();
  place.is_system = !place.memory.has_value();
  if (place.is_system) place.memory = DeviceMemory{available_memory_bytes(), 0};
  return place;
}

void check_memory(const std::vector<MemoryNeed>& needs, const MemoryPlace& place) {
  const uint64_t all = device_bytes(needs);
  // The buffers of the loading are gone when the rest comes.
  const uint64_t peak = std::max(all, bytes_of(needs, MemoryKind::kWeights) + bytes_of(needs, MemoryKind::kLoading));
  if (!place.memory || peak <= place.memory->free) return;
  std::string parts;
  for (const MemoryKind kind : {MemoryKind::kWeights, MemoryKind::kActivations, MemoryKind::kKv, MemoryKind::kReserve})
    if (const uint64_t bytes = bytes_of(needs, kind); bytes > 0)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name_of(kind), bytes);
  throw CodedError(
      ErrorCode::kVramOom,
      fmt::format(
          "the model needs {} bytes of {} memory ({}), of which {} are free; use a smaller model or one that is "
          "quantized more strongly, or lower --kv-memory, --ctx or --max-running",
          peak, place.is_system ? "the system's" : "the device's", parts, place.memory->free));
}

CompileOptions exact_stand_in(CompileOptions options) {
  constexpr uint32_t kPages = 64;
  options.numerics = Numerics::kExact;
  options.kv.n_pages = std::min(options.kv.n_pages, kPages);
  return options;
}

MemoryPlan plan_memory(const LoadOptions& options, Plan shape, uint32_t model_context, const MemoryPlace& place) {
  if (options.gpu_memory_utilization != 0.0 && place.is_system)
    throw InputError(fmt::format("--gpu-memory-utilization {}: the backend {} has no memory of its own",
                                 options.gpu_memory_utilization, place.backend.name));
  if (options.context > model_context)
    throw InputError(fmt::format("--ctx {}: the model was made for {} positions", options.context, model_context));
  MemoryPlan out;
  out.compile.kv.dtype = kv_dtype_of(options);
  out.compile.max_logit_rows = options.max_sequences;
  out.compile.numerics = place.numerics;
  const bool is_fast = place.numerics == Numerics::kFast;
  out.compile.max_rows = std::max(is_fast ? kFastRows : out.compile.max_rows, options.max_sequences);
  out.page_bytes = kv_page_bytes(shape, out.compile.kv);

  const auto needs = [&] {
    std::vector<MemoryNeed> all = place.needs(shape, out.compile);
    if (options.self_test && is_fast) {
      const std::vector<MemoryNeed> exact = place.needs(shape, exact_stand_in(out.compile));
      all.push_back({MemoryKind::kReserve, "self-test's exact program",
                     bytes_of(exact, MemoryKind::kActivations) + bytes_of(exact, MemoryKind::kKv)});
    }
    if (options.self_test) {
      const std::vector<MemoryNeed> second = place.needs(shape, self_test_program(out.compile.kv.dtype));
      all.push_back({MemoryKind::kReserve, "self-test's second program",
                     bytes_of(second, MemoryKind::kActivations) + bytes_of(second, MemoryKind::kKv)});
    }
    return all;
  };
  shape.rope.context = options.context != 0 ? options.context : model_context;
  const std::vector<MemoryNeed> fixed = needs();
  check_memory(fixed, place);
  KvWish wish = wish_for(options, place, device_bytes(fixed));
  wish.page_bytes = out.page_bytes;
  wish.page_size = out.compile.kv.page_size;
  wish.model_context = model_context;
  wish.context = options.context;
  wish.kv_memory = options.kv_memory;
  if (place.memory) out.pages_that_fit = wish.room_bytes / wish.page_bytes;
  const KvBudget budget = choose_kv_budget(wish);
  out.context = shape.rope.context = budget.context;
  out.compile.kv.n_pages = budget.n_pages;
  out.needs = needs();
  check_memory(out.needs, place);
  return out;
}

std::string to_text(const MemoryPlan& plan, const MemoryPlace& place) {
  const KvShape& kv = plan.compile.kv;
  std::string text;
  for (const MemoryNeed& need : plan.needs) {
    if (need.kind == MemoryKind::kHost || need.kind == MemoryKind::kLoading) continue;
    std::string note;
    if (need.kind == MemoryKind::kKv)
      note = fmt::format("{} of {} positions, {}: {} bytes each, {} a position", kv.n_pages, kv.page_size,
                         to_string(kv.dtype), plan.page_bytes, plan.page_bytes / kv.page_size);
    const bool is_of_one = need.kind == MemoryKind::kKv && (kv.n_pages - 1) * uint64_t{kv.page_size} < plan.context;
    text += line(is_of_one ? need.what + " of one sequence" : need.what, need.bytes, note);
  }
  text += line("together", device_bytes(plan.needs));
  if (place.memory && place.is_system) {
    text += line("available of the system's memory", place.memory->free);
  } else if (place.memory) {
    text += line("free on the device", place.memory->free);
    text += line("taken already, by contexts and others", place.memory->total - place.memory->free);
    text += line("the device's memory", place.memory->total);
  }
  if (plan.pages_that_fit)
    text += fmt::format("  KV pages that fit: {} ({} positions)\n", *plan.pages_that_fit,
                        *plan.pages_that_fit * kv.page_size);
  for (const MemoryNeed& need : plan.needs)
    if (need.kind == MemoryKind::kHost || need.kind == MemoryKind::kLoading)
      text += line(fmt::format("{}: {}", name_of(need.kind), need.what), need.bytes);
  return text;
}

}  // namespace llorch
