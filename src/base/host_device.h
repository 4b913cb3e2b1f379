// Marks functions that host and CUDA device compile alike.
#pragma once

#if defined(__CUDACC__)
#define LLORCH_HD __host__ __device__
#else
#define LLORCH_HD
#endif
