// The op's only arithmetic, for host and device, and the description of one call.
// Free of torch: the CPU variants, the CUDA kernel and its test on the CPU all include it.
// Compile with contraction off (-ffp-contract=off, -fmad=false): then portable, AVX2, AVX-512, CUDA
// and the torch reference give the same bits.
//
// Legend: B batch, H heads, T positions, D head dimension, R <= D rotary dimension, half = R/2.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define RESONANCE_HD __host__ __device__ __forceinline__
#else
#define RESONANCE_HD inline __attribute__((always_inline))
#endif

enum class Type : int { f32, bf16, f16, f64 };

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

// One of q and k as [B, H, T, D]; strides in elements, the last one is 1.
struct Side {
  const void* in;
  void* out;
  int64_t heads, in_b, in_h, in_t, out_b, out_h, out_t;
};

struct Call {
  Side side[2];
  int64_t batch, num_positions, head_dim, half;
  Type type;
  bool interleaved, conjugate;
  double amplitude;
  // The table. Dense: entry (b, row, j) at b*table_b + row*table_t + j. Packed (start given): entry
  // start[j] + m % modulus[j].
  const void *cos, *sin;
  bool wide;  // float64 entries
  int64_t table_b, table_t;
  const int64_t *start, *modulus;
  // positions[b*position_b + t*position_t], null for 0 .. T-1. A position is known where 0 <= m < limit.
  const int64_t* positions;
  int64_t position_b, position_t, limit, entries;
};

// Every file has its own copy of these functions: were the linker to merge them, the one compiled
// for AVX-512 could be called on a machine without.
namespace {

// Eqs. 3 to 5: one pair, or one vector of pairs.
template <class V>
RESONANCE_HD void turn(V a, V b, V c, V s, V& x, V& y) {
  x = a * c - b * s;
  y = a * s + b * c;
}

RESONANCE_HD uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
RESONANCE_HD float to_float(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// Data in memory to the type that arithmetic is done in, and back with round-to-nearest-even.
RESONANCE_HD float widen(float x) { return x; }
RESONANCE_HD double widen(double x) { return x; }
RESONANCE_HD float widen(bf16 x) { return to_float(uint32_t(x.bits) << 16); }
RESONANCE_HD float widen(f16 x) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(x.bits));
#else
  uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  if (rest >= 0x0f800000) return to_float(sign | rest | 0x7f800000);  // infinite, NaN
  return to_float(to_bits(to_float(rest) * 0x1p112f) | sign);  // exact: subnormals become normal
#endif
}

RESONANCE_HD void narrow(float x, float& y) { y = x; }
RESONANCE_HD void narrow(double x, double& y) { y = x; }
RESONANCE_HD void narrow(float x, bf16& y) {
#ifdef __CUDA_ARCH__
  y.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  uint32_t bits = to_bits(x);
  y.bits = x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}
RESONANCE_HD void narrow(float x, f16& y) {
#ifdef __CUDA_ARCH__
  y.bits = __half_as_ushort(__float2half_rn(x));
#else
  uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) {
    y.bits = uint16_t(sign | 0x7e00);
  } else if (rest >= 0x477ff000) {  // 65520 and more round to infinity
    y.bits = uint16_t(sign | 0x7c00);
  } else if (rest < 0x38800000) {  // subnormal: adding 1/2 lets the addition round at the right bit
    y.bits = uint16_t(sign | (to_bits(to_float(rest) + 0.5f) - 0x3f000000));
  } else {
    y.bits = uint16_t(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
  }
#endif
}

}  // namespace

// torch's own threads (torch.set_num_threads), by two functions of its stable C ABI: a second OpenMP
// would not know their number. They return 0.
struct Threads {
  int32_t (*count)(uint32_t* out);
  int32_t (*share)(int64_t begin, int64_t end, int64_t grain, void (*work)(int64_t, int64_t, void*), void* data);
};
extern Threads threads;

// Turn q and k on the CPU. warm: the outputs are memory that was written before; only there do stores
// past the cache pay (fresh pages are zeroed through it anyway).
void rotate_cpu(const Call& call, bool warm);
// portable, avx2 or avx512: the variant that this machine runs.
const char* cpu_variant();
// Turn q and k in one launch on a device's stream (a cudaStream_t). Returns null, or what went wrong.
const char* rotate_cuda(const Call& call, int device, void* stream);
