// What one CPU variant (portable, avx2, avx512) exports: plain functions, chosen at run time.
#pragma once
#include "../rotate.h"

// Turn num_rows heads whose tables lie table_stride apart (0: all of one position). cos and sin are
// as Look left them. Strides in elements. Nothing at or past in_end is prefetched: looking an
// unmapped page up costs more than a row.
using Rows = void (*)(int64_t num_rows, const void* in, int64_t in_stride, const void* in_end, void* out,
                      int64_t out_stride, const void* cos, const void* sin, int64_t table_stride, int64_t half, int64_t head_dim);
// cos and sin of positions t .. t+count-1 of sequence b, amplitude and sign applied, as [count, half]
// of the arithmetic's type, in the order that this type's Rows read.
using Look = void (*)(const Call& call, int64_t b, int64_t t, int64_t count, void* cos, void* sin);

struct Kernels {
  const char* name;
  Rows (*rows)(Type type, bool interleaved, int64_t half, bool stream);
  Look (*look)(Type type, bool wide, bool interleaved);
};

const Kernels* kernels_portable();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
