#include "trace/cut.h"

#include <fmt/format.h>

#include <algorithm>

#include "trace/excerpt.h"

namespace llorch {
namespace {

// Beyond a chunk of softmax, a page of 64 and four of 16.
constexpr uint32_t kDeepEnough = 67;
// Several rows that see each other.
constexpr uint32_t kShallowest = 5;

}  // namespace

Cut choose_cut(const Plan& plan, uint32_t wanted, uint64_t max_work) {
  const auto affordable = [&](uint32_t n_layers) {
    return max_work / std::max<uint64_t>(work_of_row(first_layers(plan, n_layers)), 1);
  };
  Cut cut{.n_layers = plan.n_layers, .of_layers = plan.n_layers, .of_positions = wanted};
  while (cut.n_layers > 1 && affordable(cut.n_layers) < std::min(wanted, kDeepEnough))
    cut.n_layers = (cut.n_layers + 1) / 2;
  const uint32_t fewest = std::min(wanted, kShallowest);
  cut.n_positions = static_cast<uint32_t>(std::clamp<uint64_t>(affordable(cut.n_layers), fewest, wanted));
  if (cut.n_layers == cut.of_layers) return cut;
  const auto of_whole = static_cast<uint32_t>(std::min<uint64_t>(affordable(cut.of_layers), fewest));
  cut.n_whole_positions = of_whole < std::min(wanted, 2u) ? 0 : of_whole;
  return cut;
}

std::string to_text(const Cut& cut) {
  std::string text = cut.n_layers == cut.of_layers
                         ? fmt::format("all {} layers", cut.n_layers)
                         : fmt::format("the first {} of {} layers", cut.n_layers, cut.of_layers);
  text += cut.n_positions == cut.of_positions
              ? fmt::format(" at {} positions", cut.n_positions)
              : fmt::format(" at {} of {} positions", cut.n_positions, cut.of_positions);
  if (cut.n_whole_positions > 0) text += fmt::format(", all layers at {}", cut.n_whole_positions);
  return text;
}

}  // namespace llorch
