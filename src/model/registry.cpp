// Which family writes the plan of which architecture.
#include "base/error.h"
#include "model/families.h"
#include "model/model.h"
#include "model/rope.h"

namespace llorch {
namespace {

using WritePlan = Plan (*)(const ModelConfig&, const WeightCatalog&, RopeTable);

WritePlan find_family(const std::string& architecture) {
  if (architecture == "llama") return llama_plan;
  fail("architecture \"{}\" is not supported; supported: llama", architecture);
}

std::vector<float> rope_factors(const Checkpoint& checkpoint) {
  const Tensor* tensor = checkpoint.find("rope_freqs.weight");
  if (tensor == nullptr) return {};
  std::vector<float> factors(static_cast<size_t>(tensor->cols()));
  read_row(*tensor, 0, factors.data());
  return factors;
}

}  // namespace

Model load_model(const Checkpoint& checkpoint, uint32_t context) {
  ModelConfig config = read_config(checkpoint);
  if (context == 0) context = config.context;
  if (context > config.context)
    fail("{}: context of {} positions asked for, the model has {}", checkpoint.path().string(), context,
         config.context);
  const WeightCatalog catalog{
      .at = [&](const std::string& name) -> const Tensor& { return checkpoint.at(name); },
      .contains = [&](const std::string& name) { return checkpoint.find(name) != nullptr; },
  };
  RopeTable rope = make_rope_table(config, context, rope_factors(checkpoint));
  const WritePlan write_plan = find_family(config.architecture);
  try {
    Plan plan = write_plan(config, catalog, std::move(rope));
    return {std::move(config), std::move(plan)};
  } catch (const Error&) {
    std::throw_with_nested(
        CodedError(ErrorCode::kInvalidModel,
                   fmt::format("{}: the weights do not fit the configuration", checkpoint.path().string())));
  }
}

}  // namespace llorch
