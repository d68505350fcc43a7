// Enough of CUDA for g++ to compile rotate.cu's body and run it thread by thread: the kernel has no
// shared memory and no synchronisation. For tests (tests/test_cuda.py), where no GPU is.
#pragma once
#include <stdexcept>

#define __global__
struct alignas(8) uint2 { unsigned x, y; };  // as CUDA aligns them: the sanitizer sees an access that a GPU would not take
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct Index { unsigned x, y; };
static Index blockIdx, blockDim, threadIdx;

struct OnDevice {
  const char* error = nullptr;
  explicit OnDevice(int) {}
};

#define TRAP() throw std::out_of_range("position outside the table")
#define LAUNCH(kernel, grid_x, grid_y, threads, stream, ...)                \
  do {                                                                      \
    (void)stream;                                                           \
    blockDim = {unsigned(threads), 1};                                      \
    for (blockIdx.y = 0; blockIdx.y < unsigned(grid_y); ++blockIdx.y)       \
      for (blockIdx.x = 0; blockIdx.x < unsigned(grid_x); ++blockIdx.x)     \
        for (threadIdx.x = 0; threadIdx.x < unsigned(threads); ++threadIdx.x) \
          kernel(__VA_ARGS__);                                              \
  } while (0)
