#include "trace/doctor_json.h"

#include <fmt/format.h>

#include <bit>

namespace llorch {
namespace {

using nlohmann::json;

const char* name_of(CheckKind kind) {
  switch (kind) {
    case CheckKind::kDevice:
      return "device";
    case CheckKind::kModel:
      return "model";
    case CheckKind::kWeights:
      return "weights";
    case CheckKind::kVerbs:
      return "verbs";
    case CheckKind::kToken:
      return "token";
    case CheckKind::kPrefill:
      return "prefill";
    case CheckKind::kFusion:
      return "fusion";
    case CheckKind::kDecode:
      return "decode";
    case CheckKind::kChunks:
      return "chunks";
    case CheckKind::kBorders:
      return "borders";
    case CheckKind::kScatter:
      return "scatter";
    case CheckKind::kCompany:
      return "company";
    case CheckKind::kLayers:
      return "layers";
    case CheckKind::kSampling:
      return "sampling";
    case CheckKind::kEngine:
      return "engine";
    case CheckKind::kHistory:
      return "history";
  }
  return "";
}

json value(float x) { return {{"value", x}, {"bits", fmt::format("{:08x}", std::bit_cast<uint32_t>(x))}}; }

json to_json(const BackendInfo& info) { return {{"name", info.name}, {"device", info.device}}; }

json to_json(const Finding& f) {
  json out{{"step", f.step}, {"verb", f.verb}, {"rows", f.n_rows}, {"positions", f.positions}};
  if (!f.positions.empty())
    out["first"] = {{"position", f.first.position},
                    {"element", f.first.element},
                    {"got", value(f.first.a)},
                    {"expected", value(f.first.b)}};
  if (!f.elements.empty()) out["elements"] = f.elements;
  if (!f.fused.empty()) out["fused"] = f.fused;
  if (!f.remark.empty()) out["remark"] = f.remark;
  return out;
}

json to_json(const Check& check) {
  json out{{"kind", name_of(check.kind)},
           {"name", check.name},
           {"passed", check.passed},
           {"ms", check.ms},
           {"sentence", check.sentence}};
  if (check.finding) out["finding"] = to_json(*check.finding);
  return out;
}

}  // namespace

json to_json(const Diagnosis& d) {
  json out{{"backend", to_json(d.subject)},
           {"reference", to_json(d.reference)},
           {"cut",
            {{"layers", d.cut.n_layers},
             {"of_layers", d.cut.of_layers},
             {"positions", d.cut.n_positions},
             {"of_positions", d.cut.of_positions},
             {"whole_positions", d.cut.n_whole_positions}}},
           {"checks", json::array()},
           {"healthy", d.healthy()},
           {"verdict", d.verdict}};
  for (const Check& check : d.checks) out["checks"].push_back(to_json(check));
  if (!d.step.empty()) out["step"] = d.step;
  if (d.position) out["position"] = *d.position;
  return out;
}

}  // namespace llorch
