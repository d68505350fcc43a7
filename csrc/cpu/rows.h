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
struct VectorOf { typedef T type __attribute__((vector_size(sizeof(T) * N))); };
template <class T, int N>
using Vec = typename VectorOf<T, N>::type;

template <class S> struct Math { using type = float; static constexpr bool is_bf16 = false; };
template <> struct Math<double> { using type = double; static constexpr bool is_bf16 = false; };
template <> struct Math<bf16> { using type = float; static constexpr bool is_bf16 = true; };

constexpr int kF = kBytes / 4;
constexpr int64_t kAhead = 8;  // rows
using F = Vec<float, kF>;
using U = Vec<uint32_t, kF>;
using H = Vec<uint16_t, kF>;

// By memcpy: data has the alignment of its elements only.
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
  __builtin_memcpy(to, &v, sizeof v);
}
template <class V>
inline __attribute__((always_inline)) V get(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

// load and store of one vector of arithmetic type
inline __attribute__((always_inline)) F load(const float* x) { return get<F>(x); }
inline __attribute__((always_inline)) Vec<double, kF / 2> load(const double* x) {
  return get<Vec<double, kF / 2>>(x);
}
inline __attribute__((always_inline)) F load(const bf16* x) {
#if defined(__AVX512F__)  // GCC 12 widens in two halves
  return (F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))), 16);
#else
  return (F)(__builtin_convertvector(get<H>(x), U) << 16);
#endif
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
// bfloat16 in the upper half of every lane, rounded to nearest even; a NaN stays as it is, quiet.
inline __attribute__((always_inline)) U round(F v) {
  const U bits = (U)v;
#if defined(__AVX512F__)
  const __m512i i = (__m512i)bits, odd = _mm512_and_si512(_mm512_srli_epi32(i, 16), _mm512_set1_epi32(1));
  return (U)_mm512_mask_add_epi32(i, _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_ORD_Q), i,
                                  _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
#else
  return bits + ((U)(v == v) & (0x7fff + ((bits >> 16) & 1)));
#endif
}
template <bool STREAM> inline __attribute__((always_inline)) void store(bf16* y, F v) {
  put<STREAM>(y, __builtin_convertvector(round(v) >> 16, H));
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

#if defined(__AVX512F__)
#define UPPER 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, \
              55, 57, 59, 61, 63
#elif defined(__AVX2__)
#define UPPER 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#else
#define UPPER 1, 3, 5, 7, 9, 11, 13, 15
#endif
// Two vectors to 2*kF neighbours in memory.
template <bool STREAM, class S, class V> inline __attribute__((always_inline)) void store_both(S* y, V v, V w) {
  if constexpr (Math<S>::is_bf16) {
    using W = Vec<uint16_t, 2 * kF>;
    put<STREAM>(y, __builtin_shufflevector((W)round(v), (W)round(w), UPPER));
  } else {
    store<STREAM>(y, v);
    store<STREAM>(y + sizeof(V) / sizeof(v[0]), w);
  }
}

// One vector of interleaved pairs. bfloat16 pairs are the two halves of a 32-bit lane: no shuffles.
template <bool STREAM, class S, class A>
inline __attribute__((always_inline)) void interleaved(const S* in, S* out, const A* cos, const A* sin) {
  constexpr int N = kBytes / sizeof(A);
  Vec<A, N> x, y;
  if constexpr (Math<S>::is_bf16) {
    const U pairs = get<U>(in);
    turn<F>((F)(pairs << 16), (F)(pairs & 0xffff0000), load(cos), load(sin), x, y);
    put<STREAM>(out, (round(x) >> 16) | (round(y) & 0xffff0000));
  } else {
    const auto lo = load(in), hi = load(in + N);
    turn<Vec<A, N>>(Lanes<N>::even(lo, hi), Lanes<N>::odd(lo, hi), load(cos), load(sin), x, y);
    store<STREAM>(out, Lanes<N>::low(x, y));
    store<STREAM>(out + N, Lanes<N>::high(x, y));
  }
}

// HALF 0: known at run time only.
template <class S, int HALF, bool INTERLEAVED, bool STREAM>
void rows(int64_t num_rows, const void* in_, int64_t in_stride, const void* in_end_, void* out_, int64_t out_stride,
          const void* cos_, const void* sin_, int64_t table_stride, int64_t half_, int64_t head_dim) {
  const char* in_end = static_cast<const char*>(in_end_);
  using A = typename Math<S>::type;
  constexpr int N = kBytes / sizeof(A);
  const int64_t half = HALF ? HALF : half_;
  const S* in = static_cast<const S*>(in_);
  S* out = static_cast<S*>(out_);
  const A *cos = static_cast<const A*>(cos_), *sin = static_cast<const A*>(sin_);
  for (int64_t row = 0; row < num_rows; ++row) {
    int64_t j = 0;
    // The next rows: a hardware prefetcher stops at every page, and rows may lie far apart.
    const char* ahead = reinterpret_cast<const char*>(in + kAhead * in_stride);
    if (HALF && ahead < in_end)
      for (int64_t line = 0; line < int64_t(2 * HALF * sizeof(S)); line += 64) __builtin_prefetch(ahead + line);
    // Unrolled where HALF is known, so that nothing but loads, arithmetic and stores is left.
    if constexpr (!INTERLEAVED) {
#pragma GCC unroll 8
      for (; j + 2 * N <= half; j += 2 * N) {
        Vec<A, N> x0, y0, x1, y1;
        turn<Vec<A, N>>(load(in + j), load(in + half + j), load(cos + j), load(sin + j), x0, y0);
        turn<Vec<A, N>>(load(in + j + N), load(in + half + j + N), load(cos + j + N), load(sin + j + N), x1, y1);
        store_both<STREAM>(out + j, x0, x1);
        store_both<STREAM>(out + half + j, y0, y1);
      }
    }
#pragma GCC unroll 8
    for (; j + N <= half; j += N) {
      if constexpr (INTERLEAVED) {
        interleaved<STREAM>(in + 2 * j, out + 2 * j, cos + j, sin + j);
      } else {
        Vec<A, N> x, y;
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
  A *__restrict to_cos = static_cast<A*>(cos_), *__restrict to_sin = static_cast<A*>(sin_);
  const A up = A(call.amplitude), down = call.conjugate ? -up : up;
  int64_t previous = -2;
  // Packed: where every feature's period begins and ends in the table and where it is now, carried from
  // one position to its neighbour, since a division costs more than the rotation of a pair. 32 bits
  // suffice for an entry and let the loops vectorise.
  int32_t first[4096], length[4096], entry[4096];
  for (int64_t j = 0; call.start && j < half; ++j) {
    first[j] = int32_t(call.start[j]);
    length[j] = int32_t(call.modulus[j]);
  }
  for (int64_t i = 0; i < count; ++i, to_cos += half, to_sin += half) {
    const int64_t m = call.positions ? call.positions[b * call.position_b + (t + i) * call.position_t] : t + i;
    if (!call.start) {
      const E *c = cos + b * call.table_b + m * call.table_t, *s = sin + b * call.table_b + m * call.table_t;
      for (int64_t j = 0; j < half; ++j) {
        to_cos[j] = A(c[j]) * up;
        to_sin[j] = A(s[j]) * down;
      }
      continue;
    }
    if (m == previous + 1) {
      for (int64_t j = 0; j < half; ++j) {
        const int32_t next = entry[j] + 1;
        entry[j] = next == first[j] + length[j] ? first[j] : next;
      }
    } else if (m >> 32 == 0) {
      for (int64_t j = 0; j < half; ++j) entry[j] = first[j] + int32_t(uint32_t(m) % uint32_t(length[j]));
    } else {
      for (int64_t j = 0; j < half; ++j) entry[j] = first[j] + int32_t(m % length[j]);
    }
    if (i % 16 == 0 && i + 16 < call.num_positions)  // a stream for every feature: more than a prefetcher can follow
      for (int64_t j = 0; j < half; ++j) {
        __builtin_prefetch(cos + entry[j] + 32);
        __builtin_prefetch(sin + entry[j] + 32);
      }
    for (int64_t j = 0; j < half; ++j) {
      to_cos[j] = A(cos[entry[j]]) * up;
      to_sin[j] = A(sin[entry[j]]) * down;
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
