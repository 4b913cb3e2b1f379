#include "base/fault.h"

#ifdef LLORCH_FAULTS

#include <cstdlib>
#include <regex>

#include "base/error.h"

namespace llorch {

FaultList::FaultList(const std::string& text) {
  static const std::regex kComma(","), kForm("([a-z.]+)(?:/([a-z0-9_.]+))?(@serving)?:([1-9][0-9]{0,8})");
  if (text.empty()) return;
  for (std::sregex_token_iterator it(text.begin(), text.end(), kComma, -1), end; it != end; ++it) {
    const std::string entry = *it;
    std::smatch part;
    if (!std::regex_match(entry, part, kForm)) {
      fail("LLORCH_FAULT: expected POINT[/STEP][@serving]:N, got \"{}\"", entry);
    }
    entries_.emplace_back(part[1], part[2], part[3].matched, std::stoull(part[4]));
  }
}

bool FaultList::fires(std::string_view point, std::string_view step) {
  bool fires = false;
  for (Entry& entry : entries_) {
    if (entry.point != point || !(entry.step.empty() || entry.step == step)) continue;
    if (entry.serving_only && !serving_) continue;
    if (++entry.passed == entry.n) fires = true;
  }
  return fires;
}

namespace {

FaultList& faults() {
  static FaultList list(std::getenv("LLORCH_FAULT") != nullptr ? std::getenv("LLORCH_FAULT") : "");
  return list;
}

}  // namespace

bool fault(std::string_view point, std::string_view step) { return faults().fires(point, step); }

void begin_serving_faults() { faults().begin_serving(); }

}  // namespace llorch

#endif
