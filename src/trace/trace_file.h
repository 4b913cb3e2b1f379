// Trace files: SafeTensors with one tensor [rows, width] for each step, and where it all comes from in the metadata.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "trace/record.h"
#include "trace/trace_info.h"

namespace llorch {

// Runs the sequence and writes the wanted steps as they are shown: memory does not grow with the trace. Of `info` the
// caller says model, hashes, backend, device, numerics and build; tokens and steps are filled in here. Throws Error as
// trace_sequence() does, or if the file cannot be written. A file that was not completed is refused by every reader.
void write_trace(const std::filesystem::path& path, Program& program, const SequenceRun& run, const StepSet& steps,
                 TraceInfo info);

// A step's output as a trace file holds it.
struct TracedRows {
  std::string step;
  std::vector<uint32_t> positions;  // [rows]
  uint32_t width = 0;
  std::span<const float> values;  // [rows, width], in the mapping
};

// A trace file, mapped and checked. Move-only.
class TraceFile {
 public:
  // Throws Error naming file and field or tensor, expected and got.
  explicit TraceFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const TraceInfo& info() const { return info_; }
  const std::vector<TracedRows>& steps() const { return steps_; }  // in plan order where info().steps are said
  const TracedRows* find(std::string_view step) const;             // nullptr if absent

  // Gives the pages of a step back to the system.
  void release(const TracedRows& rows) const { file_.release(std::as_bytes(rows.values)); }

 private:
  MappedFile file_;
  TraceInfo info_;
  std::vector<TracedRows> steps_;
};

}  // namespace llorch
