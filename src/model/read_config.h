// The two readers behind read_config(), one for each container.
#pragma once

#include "model/config.h"

namespace llorch {

ModelConfig read_hf_config(const Checkpoint& checkpoint);
ModelConfig read_gguf_config(const Checkpoint& checkpoint);

}  // namespace llorch
