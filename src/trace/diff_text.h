// A comparison of two traces as lines for a terminal, and the sentences that all its forms share.
#pragma once

#include <string>

#include "trace/diff_report.h"

namespace llorch {

// A line for each side, a line a step, and the verdict; the first step that is not within its bound is marked.
std::string to_text(const DiffReport& report);

// Where and how a step differs: "layers.0.attn (layer 0, attention, f32 [5, 256]): position 1, element 7: a 1.5
// (0x3fc00000), b 1.25 (0x3fa00000); 640 of 1280 elements differ". With bounds: NMSE, bound and the largest difference.
std::string difference_text(const StepDiff& step);

// Of a comparison within bounds the step with the largest share of its bound, else nullptr.
const StepDiff* closest_to_bound(const DiffReport& report);

// "all 84 steps are equal, bit for bit"; "2 of 84 steps differ; the first: ..."; "all 84 steps are within their bounds;
// the closest is layers.1.act at 0.11 of its bound; the largest logit is the same one in 4 of 4 rows"
std::string verdict_text(const DiffReport& report);

// "7 tokens: 5 prefilled, 2 decoded" and the like, for the head of a report.
std::string run_text(const TraceInfo& info);

// "cpu, AMD EPYC 9654 (avx512vnni, 2 threads), llorch 0.1.0, exact".
std::string side_text(const TraceInfo& info);

std::string bits_text(float value);  // "0x3fc00000"

}  // namespace llorch
