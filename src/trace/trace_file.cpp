#include "trace/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "backend/slots.h"
#include "base/error.h"
#include "format/printable.h"
#include "format/safetensors.h"
#include "format/safetensors_writer.h"
#include "trace/trace_metadata.h"

namespace llorch {
namespace {

std::vector<uint32_t> positions_from(uint32_t first, size_t n) {
  std::vector<uint32_t> positions(n);
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

TracedRows rows_of(const Tensor& tensor, const TraceInfo& info, const std::filesystem::path& file) {
  const std::string where = fmt::format("{}: tensor {}", file.string(), printable(tensor.name));
  if (tensor.dtype != DType::kF32) fail("{}: dtype: expected f32, got {}", where, to_string(tensor.dtype));
  const size_t n_all = info.tokens.size(), n_logits = n_all - info.n_prompt + 1;
  const bool is_matrix = tensor.shape.size() == 2 && tensor.shape[1] > 0 && tensor.shape[1] <= INT32_MAX;
  const auto rows = is_matrix ? static_cast<uint64_t>(tensor.shape[0]) : 0;
  if (!is_matrix || (rows != n_all && rows != n_logits))
    fail("{}: shape: expected [{} or {}, width] for {} tokens, {} of them the prompt, got {}", where, n_all, n_logits,
         n_all, info.n_prompt, printable(shape_string(tensor.shape)));
  if (reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignof(float) != 0)
    fail("{}: data_offsets: expected a multiple of 4 in the file", where);
  return {tensor.name,
          positions_from(rows == n_all ? 0 : info.n_prompt - 1, rows),
          static_cast<uint32_t>(tensor.shape[1]),
          {reinterpret_cast<const float*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(float)}};
}

}  // namespace

void write_trace(const std::filesystem::path& path, Program& program, const SequenceRun& run, const StepSet& steps,
                 TraceInfo info) {
  const Plan& plan = program.plan();
  check_run(run, plan, program.options());
  info.tokens = run.tokens;
  info.n_prompt = run.n_prompt;
  info.kv_dtype = to_string(program.options().kv.dtype);
  const std::vector<bool> gathered = gathered_steps(plan);
  std::vector<Tensor> tensors;
  std::vector<size_t> index(steps.size());  // of a step's tensor
  for (size_t i = 0; i < steps.size(); ++i) {
    if (!steps[i]) continue;
    const Step& step = plan.steps[i];
    const size_t rows = gathered[i] ? run.n_logit_rows() : run.tokens.size();
    index[i] = tensors.size();
    tensors.push_back(
        {step.name, DType::kF32, {static_cast<int64_t>(rows), int64_t{plan.slot(output_slot(step.op)).width}}, {}});
    info.steps.push_back(traced_step(plan, i));
  }
  SafetensorsWriter writer(path, tensors, to_metadata(info));
  std::vector<uint64_t> written(tensors.size());  // bytes
  trace_sequence(program, run, steps, [&](size_t step, std::span<const uint32_t>, std::span<const float> output) {
    writer.write(index[step], written[index[step]], std::as_bytes(output));
    written[index[step]] += output.size_bytes();
  });
  writer.finish();
}

TraceFile::TraceFile(const std::filesystem::path& path) : file_(path) {
  TensorTable table;
  std::vector<std::string> names;
  info_ = trace_info(read_safetensors(file_.bytes(), path, table, names), path);
  if (!table.unsupported().empty()) {
    const UnsupportedTensor& tensor = table.unsupported().front();
    fail("{}: tensor {}: dtype: expected f32, got {}", path.string(), printable(tensor.name), printable(tensor.type));
  }
  for (const Tensor& tensor : table.tensors()) steps_.push_back(rows_of(tensor, info_, path));
  if (steps_.empty()) fail("{}: expected the output of at least one step, got none", path.string());
  if (info_.steps.empty()) return;
  for (size_t i = 0; i < std::max(steps_.size(), info_.steps.size()); ++i) {
    const std::string said = i < info_.steps.size() ? info_.steps[i].name : "none";
    const std::string held = i < steps_.size() ? steps_[i].step : "none";
    if (said != held)
      fail("{}: __metadata__: steps: step {} is {}, but the tensor at its place is {}", path.string(), i,
           printable(said), printable(held));
  }
}

const TracedRows* TraceFile::find(std::string_view step) const {
  const auto it = std::find_if(steps_.begin(), steps_.end(), [&](const TracedRows& rows) { return rows.step == step; });
  return it == steps_.end() ? nullptr : &*it;
}

}  // namespace llorch
