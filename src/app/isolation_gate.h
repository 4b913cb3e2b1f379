// --self-test: whether a worker shows that what it served before does not matter, before it serves.
#pragma once

#include <string>

#include "app/load.h"
#include "base/log.h"
#include "engine/engine.h"

namespace llorch {

// mode: on, off, or auto, which runs the self-test when it takes less than a second. Logs what was decided, why, and
// how long it took. Throws Error if logits differ. Comes before anything else runs on the model's program.
void check_isolation(const LoadedModel& loaded, const EngineOptions& engine, const std::string& mode,
                     const Logger& log);

}  // namespace llorch
