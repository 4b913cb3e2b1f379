// The switch of the planted bugs: the copies of the sources that plant.py makes ask it.
#pragma once

namespace llorch {

// Number of the bug that is on; 0: none. Global, so that it reaches kernels without touching their sources; set only
// while no program runs.
inline int planted_bug = 0;

[[gnu::always_inline]] inline bool mutation_is(int number) { return planted_bug == number; }

}  // namespace llorch
