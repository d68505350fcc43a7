// The part of DLPack 1.3's C exchange that the module calls: a tensor of torch, seen from C without a
// header of torch and without an owner. https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once
#include <cstdint>

struct DLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;  // of one element: 0 signed integer, 2 IEEE float, 4 bfloat16; and its bits
  uint16_t lanes;
  int64_t *shape, *strides;  // the producer's memory; strides in elements
  uint64_t byte_offset;
};
constexpr int32_t kCpu = 1, kCuda = 2;

// What the capsule torch.Tensor.__dlpack_c_exchange_api__ points to. Functions return 0, or -1 with a
// Python exception set.
struct DLExchange {
  uint32_t major, minor;
  void* older;
  void *allocate, *own, *wrap;  // not used here
  int (*view)(void* py_object, DLTensor* out);
  int (*stream)(int32_t device_type, int32_t device_id, void** out);
};
