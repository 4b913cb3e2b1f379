// The pictures of a comparison, as inline SVG: colours are classes that the page's style gives.
#pragma once

#include <string>
#include <string_view>

#include "trace/diff_report.h"

namespace llorch {

// Text from outside, fit for HTML and SVG, in elements and in attributes.
std::string escaped(std::string_view text);

// The class of a step's colour: "equal", "within" (its bound), "n0" .. "n7" by the decades of its NMSE, or "nan".
std::string heat_class(const StepDiff& step);

// What the classes mean, as a line of swatches.
std::string legend_html(const DiffReport& report);

// A row for each kind of step, a column for each layer; steps that belong to no layer span all columns. A cell has its
// numbers as a hover title and links to "#step-I", I its index in the report. The first differing step is marked.
std::string heat_map_svg(const DiffReport& report);

// The NMSE of one step by position, where it is outside its bound.
std::string positions_svg(const StepDiff& step);

}  // namespace llorch
