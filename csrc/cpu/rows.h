// The CPU kernels of one variant: portable.cpp, avx2.cpp and avx512.cpp are this file under three
// names, compiled with their own flags. Vectors are GCC/Clang vector types, so the source knows no
// instruction set but for half precision and streaming stores. Uses no inline functions of other
// headers (see rotate.h on merging).
#pragma once
#include "kernels.h"

#include <utility>  // integer_sequence, a type

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
// bfloat16 in the upper half of every lane, rounded to nearest even. A NaN stays one: its lower half is
// zero (data is bfloat16, `look` sees to the table), so nothing carries into the upper.
inline __attribute__((always_inline)) U round(F v) {
  const U bits = (U)v;
  return bits + (0x7fff + ((bits >> 16) & 1));
}
// Two vectors of results to bfloat16, as the lower and the upper half of every lane.
inline __attribute__((always_inline)) U pack(F lower, F upper) {
#if defined(__AVX512BW__)  // all 32 in one go: the discarded halves against what makes the kept ones round up
  const __m512i lo = (__m512i)lower, up = (__m512i)upper;
  const __mmask32 odd = 0xaaaaaaaa;
  const __m512i kept = _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(lo, 16), up);
  const __m512i lost = _mm512_mask_blend_epi16(odd, lo, _mm512_slli_epi32(up, 16));
  const __m512i one = _mm512_set1_epi16(1), tie = _mm512_set1_epi16(int16_t(0x8000));
  const __m512i least = _mm512_ternarylogic_epi32(kept, one, tie, 0xae);  // (~kept & 1) | 0x8000
  return (U)_mm512_mask_add_epi16(kept, _mm512_cmpge_epu16_mask(lost, least), kept, one);
#else
  return (round(lower) >> 16) | (round(upper) & 0xffff0000);
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

// Interleaved pairs a0 b0 a1 b1 ... in two vectors, to (a0 a1 ..., b0 b1 ...) and back.
template <class V, int... I>
inline __attribute__((always_inline)) void unzip(V& v, V& w, std::integer_sequence<int, I...>) {
  const V a = __builtin_shufflevector(v, w, (2 * I)...);
  w = __builtin_shufflevector(v, w, (2 * I + 1)...);
  v = a;
}
template <class V, int... I>
inline __attribute__((always_inline)) void zip(V& v, V& w, std::integer_sequence<int, I...>) {
  constexpr int N = sizeof...(I);
  const V low = __builtin_shufflevector(v, w, (I / 2 + I % 2 * N)...);
  w = __builtin_shufflevector(v, w, (I / 2 + I % 2 * N + N / 2)...);
  v = low;
}

// One vector of interleaved pairs. bfloat16 pairs are the two halves of a 32-bit lane: no shuffles.
template <bool STREAM, class S, class A>
inline __attribute__((always_inline)) void interleaved(const S* in, S* out, const A* cos, const A* sin) {
  constexpr int N = kBytes / sizeof(A);
  Vec<A, N> x, y;
  if constexpr (Math<S>::is_bf16) {
    const U pairs = get<U>(in);
    turn<F>((F)(pairs << 16), (F)(pairs & 0xffff0000), load(cos), load(sin), x, y);
    put<STREAM>(out, pack(x, y));
  } else {
    constexpr std::make_integer_sequence<int, N> lanes;
    Vec<A, N> a = load(in), b = load(in + N);
    unzip(a, b, lanes);
    turn<Vec<A, N>>(a, b, load(cos), load(sin), x, y);
    zip(x, y, lanes);
    store<STREAM>(out, x);
    store<STREAM>(out + N, y);
  }
}

// Half-split bfloat16 is turned two neighbours a lane, evens apart from odds: no shuffles. Its tables lie
// so too: of every 2*kF features first the evens, then the odds (`look` writes them).
template <class S, bool INTERLEAVED>
constexpr bool kSplitTable = Math<S>::is_bf16 && !INTERLEAVED;

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
    if constexpr (kSplitTable<S, INTERLEAVED>) {
#pragma GCC unroll 8
      for (; j + 2 * N <= half; j += 2 * N) {
        const U a = get<U>(in + j), b = get<U>(in + half + j);
        F x0, y0, x1, y1;
        turn<F>((F)(a << 16), (F)(b << 16), load(cos + j), load(sin + j), x0, y0);
        turn<F>((F)(a & 0xffff0000), (F)(b & 0xffff0000), load(cos + j + N), load(sin + j + N), x1, y1);
        put<STREAM>(out + j, pack(x0, x1));
        put<STREAM>(out + half + j, pack(y0, y1));
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

// Four features at four neighbouring positions, each in its own run of the table, as four rows.
template <class E, class A>
inline __attribute__((always_inline)) void look_tile(const E* from, const int32_t* entry, A factor, A* to,
                                                     int64_t to_stride) {
  using V = Vec<A, 4>;
  V x[4];
  for (int n = 0; n < 4; ++n) x[n] = __builtin_convertvector(get<Vec<E, 4>>(from + entry[n]), V) * factor;
  const V a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5), b = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
  const V c = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7), d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
  put<false>(to, __builtin_shufflevector(a, b, 0, 1, 4, 5));
  put<false>(to + to_stride, __builtin_shufflevector(a, b, 2, 3, 6, 7));
  put<false>(to + 2 * to_stride, __builtin_shufflevector(c, d, 0, 1, 4, 5));
  put<false>(to + 3 * to_stride, __builtin_shufflevector(c, d, 2, 3, 6, 7));
}

// E: the table's type, S: the data's.
template <class E, class S, bool INTERLEAVED>
void look(const Call& call, int64_t b, int64_t t, int64_t count, void* cos_, void* sin_) {
  using A = typename Math<S>::type;
  const int64_t half = call.half;
  const E *cos = static_cast<const E*>(call.cos), *sin = static_cast<const E*>(call.sin);
  A *to_cos = static_cast<A*>(cos_), *to_sin = static_cast<A*>(sin_);
  const A up = A(call.amplitude), down = call.conjugate ? -up : up;
  const auto position = [&](int64_t i) {
    return call.positions ? call.positions[b * call.position_b + (t + i) * call.position_t] : t + i;
  };
  // A row of something for every feature, in the order that `rows` reads.
  const auto fill = [&](auto* __restrict to, auto value) {
    const int64_t grouped = kSplitTable<S, INTERLEAVED> ? half / (2 * kF) * (2 * kF) : 0;
    for (int64_t j = 0; j < grouped; j += 2 * kF)
      for (int64_t n = 0; n < kF; ++n) {
        to[j + n] = value(j + 2 * n);
        to[j + kF + n] = value(j + 2 * n + 1);
      }
    for (int64_t j = grouped; j < half; ++j) to[j] = value(j);
  };
  // Packed: where a feature's period begins and ends in the table, and where a position lies in it.
  // 32 bits suffice for an entry and let the loops vectorise.
  int32_t first[4096], last[4096], entry[4096];
  if (call.start) {
    fill(first, [&](int64_t j) { return int32_t(call.start[j]); });
    fill(last, [&](int64_t j) { return int32_t(call.start[j] + call.modulus[j]); });
  }
  for (int64_t i = 0, run; i < count; i += run, to_cos += run * half, to_sin += run * half) {
    const int64_t m = position(i);
    for (run = 1; i + run < count && position(i + run) == m + run;) ++run;
    if (!call.start) {
      for (int64_t r = 0; r < run; ++r) {
        const int64_t row = b * call.table_b + (m + r) * call.table_t;
        fill(to_cos + r * half, [&](int64_t j) { return A(cos[row + j]) * up; });
        fill(to_sin + r * half, [&](int64_t j) { return A(sin[row + j]) * down; });
      }
      continue;
    }
    if (m >> 53 == 0) {  // in float64, where quotient and rest are exact: integers divide one by one
      for (int64_t j = 0; j < half; ++j) {
        const double length = last[j] - first[j], turns = __builtin_trunc(double(m) / length);
        entry[j] = first[j] + int32_t(double(m) - turns * length);
      }
    } else {
      for (int64_t j = 0; j < half; ++j) entry[j] = first[j] + int32_t(m % (last[j] - first[j]));
    }
    if (run == 1) {
      for (int64_t j = 0; j < half; ++j) {
        to_cos[j] = A(cos[entry[j]]) * up;
        to_sin[j] = A(sin[entry[j]]) * down;
      }
      continue;
    }
    // Neighbours lie one behind the other, up to the period's end.
    for (int64_t j = 0; j < half; j += 4) {
      const int64_t features = half - j < 4 ? half - j : 4;
      for (int64_t r = 0, steps; r < run; r += steps) {
        bool whole = features == 4 && run - r >= 4;
        for (int64_t n = 0; n < features; ++n) whole = whole && entry[j + n] + 4 <= last[j + n];
        A *tile_cos = to_cos + r * half + j, *tile_sin = to_sin + r * half + j;
        steps = whole ? 4 : 1;
        if (whole) {
          look_tile(cos, entry + j, up, tile_cos, half);
          look_tile(sin, entry + j, down, tile_sin, half);
        }
        for (int64_t n = 0; n < features; ++n) {
          if (!whole) {
            tile_cos[n] = A(cos[entry[j + n]]) * up;
            tile_sin[n] = A(sin[entry[j + n]]) * down;
          }
          entry[j + n] += steps;
          if (entry[j + n] == last[j + n]) entry[j + n] = first[j + n];
        }
      }
    }
  }
  if (Math<S>::is_bf16)
    for (int64_t i = -count * half; i < 0; ++i) {  // see `round`
      to_cos[i] = to_cos[i] == to_cos[i] ? to_cos[i] : A(__builtin_nan(""));
      to_sin[i] = to_sin[i] == to_sin[i] ? to_sin[i] : A(__builtin_nan(""));
    }
}

Look choose_look(Type type, bool wide, bool interleaved) {
  if (type == Type::f64) return wide ? look<double, double, true> : look<float, double, true>;
  return type == Type::bf16 && !interleaved ? look<float, bf16, false>
         : type == Type::bf16               ? look<float, bf16, true>
                                            : look<float, float, true>;
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
