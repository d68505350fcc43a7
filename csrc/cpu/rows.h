// The CPU kernels of one variant: portable.cpp, avx2.cpp and avx512.cpp are this file under three
// names, compiled with their own flags. Vectors are GCC/Clang vector types, so the source knows no
// instruction set but for half precision and streaming stores. Includes nothing that defines inline
// functions elsewhere (see rotate.h on merging).
#pragma once
#include "kernels.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T, int N>
struct VectorOf { typedef T type __attribute__((vector_size(sizeof(T) * N), aligned(sizeof(T)), may_alias)); };
template <class T, int N>
using Vec = typename VectorOf<T, N>::type;

template <class S> struct Math { using type = float; };
template <> struct Math<double> { using type = double; };

constexpr int kF = kBytes / 4;
using F = Vec<float, kF>;
using U = Vec<uint32_t, kF>;
using H = Vec<uint16_t, kF>;

template <bool STREAM, class V>
inline __attribute__((always_inline)) void put(void* to, V v) {
#if defined(__SSE2__)
  if constexpr (STREAM && sizeof(V) == 16) {
    _mm_stream_si128(static_cast<__m128i*>(to), (__m128i)v);
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (STREAM && sizeof(V) == 32) {
    _mm256_stream_si256(static_cast<__m256i*>(to), (__m256i)v);
    return;
  }
#endif
#if defined(__AVX512F__)
  if constexpr (STREAM && sizeof(V) == 64) {
    _mm512_stream_si512(static_cast<__m512i*>(to), (__m512i)v);
    return;
  }
#endif
  *static_cast<V*>(to) = v;
}

// load and store of one vector of arithmetic type
inline __attribute__((always_inline)) F load(const float* x) { return *reinterpret_cast<const F*>(x); }
inline __attribute__((always_inline)) Vec<double, kF / 2> load(const double* x) {
  return *reinterpret_cast<const Vec<double, kF / 2>*>(x);
}
inline __attribute__((always_inline)) F load(const bf16* x) {
  return (F)(__builtin_convertvector(*reinterpret_cast<const H*>(x), U) << 16);
}
inline __attribute__((always_inline)) F load(const f16* x) {
#if defined(__AVX512F__)
  return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
#elif defined(__AVX2__)
  return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
#else
  F v;
  for (int i = 0; i < kF; ++i) v[i] = widen(x[i]);
  return v;
#endif
}

template <bool STREAM> inline __attribute__((always_inline)) void store(float* y, F v) { put<STREAM>(y, v); }
template <bool STREAM> inline __attribute__((always_inline)) void store(double* y, Vec<double, kF / 2> v) {
  put<STREAM>(y, v);
}
template <bool STREAM> inline __attribute__((always_inline)) void store(bf16* y, F v) {
  U bits = (U)v;
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  bits = v == v ? bits : (U{} + 0x7fc0);
  put<STREAM>(y, __builtin_convertvector(bits, H));
}
template <bool STREAM> inline __attribute__((always_inline)) void store(f16* y, F v) {
#if defined(__AVX512F__)
  put<STREAM>(y, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  put<STREAM>(y, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kF; ++i) narrow(v[i], y[i]);
#endif
}

// Lane pickers for interleaved pairs: (lo, hi) hold a0 b0 a1 b1 ...
template <int N> struct Lanes;
#define LANES(N, EVEN, ODD, LO, HI)                                                                  \
  template <> struct Lanes<N> {                                                                      \
    template <class V> static inline __attribute__((always_inline)) V even(V l, V h) {               \
      return __builtin_shufflevector(l, h, EVEN);                                                    \
    }                                                                                                \
    template <class V> static inline __attribute__((always_inline)) V odd(V l, V h) {                \
      return __builtin_shufflevector(l, h, ODD);                                                     \
    }                                                                                                \
    template <class V> static inline __attribute__((always_inline)) V low(V a, V b) {                \
      return __builtin_shufflevector(a, b, LO);                                                      \
    }                                                                                                \
    template <class V> static inline __attribute__((always_inline)) V high(V a, V b) {               \
      return __builtin_shufflevector(a, b, HI);                                                      \
    }                                                                                                \
  };
#define LIST(...) __VA_ARGS__
LANES(2, LIST(0, 2), LIST(1, 3), LIST(0, 2), LIST(1, 3))
LANES(4, LIST(0, 2, 4, 6), LIST(1, 3, 5, 7), LIST(0, 4, 1, 5), LIST(2, 6, 3, 7))
LANES(8, LIST(0, 2, 4, 6, 8, 10, 12, 14), LIST(1, 3, 5, 7, 9, 11, 13, 15), LIST(0, 8, 1, 9, 2, 10, 3, 11),
      LIST(4, 12, 5, 13, 6, 14, 7, 15))
LANES(16, LIST(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
      LIST(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
      LIST(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
      LIST(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31))

// HALF 0: known at run time only.
template <class S, int HALF, bool INTERLEAVED, bool STREAM>
void rows(int64_t num_rows, const void* in_, int64_t in_stride, void* out_, int64_t out_stride, const void* cos_,
          const void* sin_, int64_t table_stride, int64_t half_, int64_t head_dim) {
  using A = typename Math<S>::type;
  constexpr int N = kBytes / sizeof(A);
  const int64_t half = HALF ? HALF : half_;
  const S* in = static_cast<const S*>(in_);
  S* out = static_cast<S*>(out_);
  const A *cos = static_cast<const A*>(cos_), *sin = static_cast<const A*>(sin_);
  for (int64_t row = 0; row < num_rows; ++row) {
    int64_t j = 0;
    // Unrolled where HALF is known, so that nothing but loads, arithmetic and stores is left.
#pragma GCC unroll 8
    for (; j + N <= half; j += N) {
      Vec<A, N> x, y;
      if constexpr (INTERLEAVED) {
        const auto lo = load(in + 2 * j), hi = load(in + 2 * j + N);
        turn<Vec<A, N>>(Lanes<N>::even(lo, hi), Lanes<N>::odd(lo, hi), load(cos + j), load(sin + j), x, y);
        store<STREAM>(out + 2 * j, Lanes<N>::low(x, y));
        store<STREAM>(out + 2 * j + N, Lanes<N>::high(x, y));
      } else {
        turn<Vec<A, N>>(load(in + j), load(in + half + j), load(cos + j), load(sin + j), x, y);
        store<STREAM>(out + j, x);
        store<STREAM>(out + half + j, y);
      }
    }
    if constexpr (HALF == 0 || HALF % N != 0) {
      for (; j < half; ++j) {
        const int64_t first = INTERLEAVED ? 2 * j : j, second = INTERLEAVED ? 2 * j + 1 : half + j;
        A x, y;
        turn<A>(widen(in[first]), widen(in[second]), cos[j], sin[j], x, y);
        narrow(x, out[first]);
        narrow(y, out[second]);
      }
    }
    if (in != out)
      for (j = 2 * half; j < head_dim; ++j) out[j] = in[j];
    in += in_stride;
    out += out_stride;
    cos += table_stride;
    sin += table_stride;
  }
#if defined(__SSE2__)
  if constexpr (STREAM) _mm_sfence();
#endif
}

template <class S, bool INTERLEAVED>
Rows choose(int64_t half, bool stream) {
  if constexpr (sizeof(S) == 8) {
    return rows<S, 0, INTERLEAVED, false>;
  } else {
    if (half == 16) return rows<S, 16, INTERLEAVED, false>;
    if (half == 32) return stream ? rows<S, 32, INTERLEAVED, true> : rows<S, 32, INTERLEAVED, false>;
    if (half == 64) return stream ? rows<S, 64, INTERLEAVED, true> : rows<S, 64, INTERLEAVED, false>;
    return rows<S, 0, INTERLEAVED, false>;
  }
}

template <class S>
Rows choose(bool interleaved, int64_t half, bool stream) {
  return interleaved ? choose<S, true>(half, stream) : choose<S, false>(half, stream);
}

Rows choose_rows(Type type, bool interleaved, int64_t half, bool stream) {
  switch (type) {
    case Type::f32: return choose<float>(interleaved, half, stream);
    case Type::bf16: return choose<bf16>(interleaved, half, stream);
    case Type::f16: return choose<f16>(interleaved, half, stream);
    default: return choose<double>(interleaved, half, stream);
  }
}

// E: the table's type, A: the arithmetic's.
template <class E, class A>
void look(const Call& call, int64_t b, int64_t t, int64_t count, void* cos_, void* sin_) {
  const int64_t half = call.half;
  const E *cos = static_cast<const E*>(call.cos), *sin = static_cast<const E*>(call.sin);
  A *to_cos = static_cast<A*>(cos_), *to_sin = static_cast<A*>(sin_);
  const A up = A(call.amplitude), down = call.conjugate ? -up : up;
  int64_t previous = -2;
  int32_t index[4096];  // m % modulus, carried from one position to the next
  for (int64_t i = 0; i < count; ++i, to_cos += half, to_sin += half) {
    const int64_t m =
        call.positions ? call.positions[b * call.position_b + (t + i) * call.position_t] : t + i;
    if (!call.start) {
      const E *c = cos + b * call.table_b + m * call.table_t, *s = sin + b * call.table_b + m * call.table_t;
      for (int64_t j = 0; j < half; ++j) {
        to_cos[j] = A(c[j]) * up;
        to_sin[j] = A(s[j]) * down;
      }
      continue;
    }
    const int64_t *start = call.start, *modulus = call.modulus;
    if (m == previous + 1) {  // neighbours: a division costs more than the rotation of a pair
      for (int64_t j = 0; j < half; ++j) {
        const int32_t next = index[j] + 1;
        index[j] = next == int32_t(modulus[j]) ? 0 : next;
      }
    } else if (m >> 32 == 0) {
      for (int64_t j = 0; j < half; ++j) index[j] = int32_t(uint32_t(m) % uint32_t(modulus[j]));
    } else {
      for (int64_t j = 0; j < half; ++j) index[j] = int32_t(m % modulus[j]);
    }
    for (int64_t j = 0; j < half; ++j) {
      const int64_t entry = start[j] + index[j];
      to_cos[j] = A(cos[entry]) * up;
      to_sin[j] = A(sin[entry]) * down;
    }
    previous = m;
  }
}

Look choose_look(Type type, bool wide) {
  if (type != Type::f64) return look<float, float>;
  return wide ? look<double, double> : look<float, double>;
}

}  // namespace

#define NAME_(variant) kernels_##variant
#define NAME(variant) NAME_(variant)
#define TEXT_(variant) #variant
#define TEXT(variant) TEXT_(variant)

const Kernels* NAME(VARIANT)() {
  static constexpr Kernels kernels{TEXT(VARIANT), choose_rows, choose_look};
  return &kernels;
}
