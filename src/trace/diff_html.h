// A comparison of two traces as a page for people: one file that loads nothing, light or dark as the reader's system.
#pragma once

#include <string>

#include "trace/diff_report.h"

namespace llorch {

// HTML with the verdict, both sides, a heat map (step x layer), the first differing step by position, and a table of
// all steps. Text that comes from traces is escaped.
std::string to_html(const DiffReport& report);

}  // namespace llorch
