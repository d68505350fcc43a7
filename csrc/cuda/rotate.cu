// The CUDA kernel: one launch turns q and k. A thread holds cos and sin of one position and a few
// pairs in registers and takes them through a group of heads, so a table entry is read (and a period
// divided by) once for the group. Data and table move in the widest accesses that they are aligned for.
// Includes no torch: it compiles wherever nvcc is, and under RESONANCE_HOST with g++ (host.h).
#include "../rotate.h"

#ifdef RESONANCE_HOST
#include "host.h"
#else
#define TRAP() __trap()
#define LAUNCH(kernel, grid_x, grid_y, threads, stream, ...) \
  kernel<<<dim3(unsigned(grid_x), unsigned(grid_y)), threads, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
// The thread's device while this lives: a stream takes launches of its own device only.
struct OnDevice {
  int before = -1;
  const char* error = nullptr;
  explicit OnDevice(int device) {
    cudaError_t status = cudaGetDevice(&before);
    if (status == cudaSuccess && before != device) status = cudaSetDevice(device);
    if (status != cudaSuccess) error = cudaGetErrorString(status);
  }
  ~OnDevice() { cudaSetDevice(before); }
};
#endif

namespace {

constexpr int kThreads = 128;
// Heads that share a thread's table entries: more reuse against fewer threads.
constexpr int64_t kHeads = 4;

template <class S> struct Math { using type = float; };
template <> struct Math<double> { using type = double; };

// The words of one access of 4, 8 or 16 bytes. Packed by hand: a struct of eight 16-bit members would be moved member
// by member.
template <int W> struct Words { uint32_t word[W]; };
RESONANCE_HD Words<4> read(const Words<4>* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  return {raw.x, raw.y, raw.z, raw.w};
}
RESONANCE_HD Words<2> read(const Words<2>* from) {
  const uint2 raw = *reinterpret_cast<const uint2*>(from);
  return {raw.x, raw.y};
}
RESONANCE_HD Words<1> read(const Words<1>* from) { return {*reinterpret_cast<const uint32_t*>(from)}; }
RESONANCE_HD void write(Words<4>* to, const Words<4>& x) {
  *reinterpret_cast<uint4*>(to) = uint4{x.word[0], x.word[1], x.word[2], x.word[3]};
}
RESONANCE_HD void write(Words<2>* to, const Words<2>& x) {
  *reinterpret_cast<uint2*>(to) = uint2{x.word[0], x.word[1]};
}
RESONANCE_HD void write(Words<1>* to, const Words<1>& x) { *reinterpret_cast<uint32_t*>(to) = x.word[0]; }

// N elements as one access, of N*sizeof(S) bytes where N > 1.
template <class S, int N>
RESONANCE_HD void load(const S* from, S (&x)[N]) {
  if constexpr (N == 1) {
    x[0] = *from;
  } else {
    const auto raw = read(reinterpret_cast<const Words<N * int(sizeof(S)) / 4>*>(from));
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if constexpr (sizeof(S) == 2) {
        x[i].bits = uint16_t(raw.word[i / 2] >> (16 * (i % 2)));
      } else if constexpr (sizeof(S) == 4) {
        x[i] = to_float(raw.word[i]);
      } else {
        const uint64_t bits = uint64_t(raw.word[2 * i + 1]) << 32 | raw.word[2 * i];
        __builtin_memcpy(&x[i], &bits, 8);
      }
    }
  }
}
template <class S, int N>
RESONANCE_HD void store(S* to, const S (&x)[N]) {
  if constexpr (N == 1) {
    *to = x[0];
  } else {
    constexpr int W = N * int(sizeof(S)) / 4;
    Words<W> raw;
#pragma unroll
    for (int i = 0; i < W; ++i) {
      if constexpr (sizeof(S) == 2) {
        raw.word[i] = uint32_t(x[2 * i].bits) | uint32_t(x[2 * i + 1].bits) << 16;
      } else if constexpr (sizeof(S) == 4) {
        raw.word[i] = to_bits(x[i]);
      } else {
        uint64_t bits;
        __builtin_memcpy(&bits, &x[i / 2], 8);
        raw.word[i] = uint32_t(bits >> (32 * (i % 2)));
      }
    }
    write(reinterpret_cast<Words<W>*>(to), raw);
  }
}

// The most elements of E in one access, of N that lie side by side.
template <class E, int N>
constexpr int kWide = N * int(sizeof(E)) < 16 ? N : 16 / int(sizeof(E));

// N elements side by side, in the widest accesses where wide says that they are aligned for them.
template <class E, int N>
RESONANCE_HD void load_all(const E* from, bool wide, E (&x)[N]) {
  constexpr int M = kWide<E, N>;
  if (wide) {
#pragma unroll
    for (int i = 0; i < N; i += M) {
      E part[M];
      load<E, M>(from + i, part);
#pragma unroll
      for (int n = 0; n < M; ++n) x[i + n] = part[n];
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = from[i];
  }
}

// E: the table's type. N pairs a thread. One thread: (b, t, N features) or (b, t, N elements past the
// rotary dimension), times the heads of group blockIdx.y, q's groups before k's.
template <class S, class E, int N, bool INTERLEAVED>
__global__ void rotate_kernel(const Call call, const bool wide_table) {
  using A = typename Math<S>::type;
  const int64_t half = call.half, pair_chunks = half / N;
  const int64_t chunks = pair_chunks + (call.head_dim - 2 * half + N - 1) / N;
  const int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= call.batch * call.num_positions * chunks) return;
  const int64_t chunk = index % chunks, t = index / chunks % call.num_positions;
  const int64_t b = index / chunks / call.num_positions;
  const int64_t q_groups = (call.side[0].heads + kHeads - 1) / kHeads;
  const bool is_k = int64_t(blockIdx.y) >= q_groups;
  const Side side = call.side[is_k];
  const int64_t first_head = (blockIdx.y - (is_k ? q_groups : 0)) * kHeads;
  const int64_t last_head = first_head + kHeads < side.heads ? first_head + kHeads : side.heads;
  const S* in = static_cast<const S*>(side.in) + b * side.in_b + t * side.in_t + first_head * side.in_h;
  S* out = static_cast<S*>(side.out) + b * side.out_b + t * side.out_t + first_head * side.out_h;

  if (chunk >= pair_chunks) {
    if (side.in == side.out) return;
    for (int64_t head = first_head; head < last_head; ++head, in += side.in_h, out += side.out_h)
      for (int64_t j = 2 * half + (chunk - pair_chunks) * N, n = 0; n < N && j < call.head_dim; ++j, ++n)
        out[j] = in[j];
    return;
  }

  const int64_t m = call.positions ? call.positions[b * call.position_b + t * call.position_t] : t;
  if (m < 0 || m >= call.limit) TRAP();
  const E *cos = static_cast<const E*>(call.cos), *sin = static_cast<const E*>(call.sin);
  const A up = A(call.amplitude), down = call.conjugate ? -up : up;
  const int64_t j = chunk * N;
  E cos_j[N], sin_j[N];
  if (call.start) {
    constexpr int M = kWide<int64_t, N>;
#pragma unroll
    for (int i = 0; i < N; i += M) {
      int64_t start[M], length[M];
      load_all<int64_t, M>(call.start + j + i, wide_table, start);
      load_all<int64_t, M>(call.modulus + j + i, wide_table, length);
#pragma unroll
      for (int n = 0; n < M; ++n) {
        // 64-bit division is slow on a GPU; most positions need none.
        const int64_t rest = (m | length[n]) >> 32 ? m % length[n] : int64_t(uint32_t(m) % uint32_t(length[n]));
        const int64_t entry = start[n] + rest;
        if (entry < 0 || entry >= call.entries) TRAP();
        cos_j[i + n] = cos[entry];
        sin_j[i + n] = sin[entry];
      }
    }
  } else {
    const int64_t entry = b * call.table_b + m * call.table_t + j;
    load_all<E, N>(cos + entry, wide_table, cos_j);
    load_all<E, N>(sin + entry, wide_table, sin_j);
  }
  A c[N], s[N];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    c[n] = A(cos_j[n]) * up;
    s[n] = A(sin_j[n]) * down;
  }
  const int64_t at_a = INTERLEAVED ? 2 * j : j, at_b = INTERLEAVED ? 2 * j + N : half + j;
  for (int64_t head = first_head; head < last_head; ++head, in += side.in_h, out += side.out_h) {
    S a[N], b_[N];
    load<S, N>(in + at_a, a);
    load<S, N>(in + at_b, b_);
    S x[N], y[N];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      A turned_x, turned_y;
      if constexpr (INTERLEAVED) {  // pairs lie side by side, over both accesses
        const S first = 2 * n < N ? a[2 * n % N] : b_[2 * n % N];
        const S second = 2 * n + 1 < N ? a[(2 * n + 1) % N] : b_[(2 * n + 1) % N];
        turn<A>(widen(first), widen(second), c[n], s[n], turned_x, turned_y);
        narrow(turned_x, 2 * n < N ? x[2 * n % N] : y[2 * n % N]);
        narrow(turned_y, 2 * n + 1 < N ? x[(2 * n + 1) % N] : y[(2 * n + 1) % N]);
      } else {
        turn<A>(widen(a[n]), widen(b_[n]), c[n], s[n], turned_x, turned_y);
        narrow(turned_x, x[n]);
        narrow(turned_y, y[n]);
      }
    }
    store<S, N>(out + at_a, x);
    store<S, N>(out + at_b, y);
  }
}

// Whether n elements of both halves of a pair may be moved as one access, on every side.
bool aligned(const Call& call, int64_t size, int64_t n) {
  int64_t odd = call.half % n;
  for (const Side& side : call.side) {
    const int64_t strides = side.in_b | side.in_h | side.in_t | side.out_b | side.out_h | side.out_t;
    odd |= (strides * size | reinterpret_cast<intptr_t>(side.in) | reinterpret_cast<intptr_t>(side.out)) % (n * size);
  }
  return odd == 0;
}

template <class S, class E, int N>
const char* launch_n(const Call& call, void* stream) {
  const int64_t chunks = call.half / N + (call.head_dim - 2 * call.half + N - 1) / N;
  const int64_t blocks = (call.batch * call.num_positions * chunks + kThreads - 1) / kThreads;
  int64_t groups = 0;
  for (const Side& side : call.side) groups += (side.heads + kHeads - 1) / kHeads;
  if (blocks == 0 || groups == 0) return nullptr;
  if (blocks >= int64_t(1) << 31 || groups >= 65536) return "more than 2^31 blocks or 65535 groups of heads";
  // Of the table in one access: entries side by side, or the starts and periods that lead to them.
  const intptr_t rows = (call.table_b | call.table_t) * sizeof(E);
  const intptr_t at = call.start ? intptr_t(call.start) | intptr_t(call.modulus)
                                 : intptr_t(call.cos) | intptr_t(call.sin) | rows;
  const bool wide = at % (call.start ? kWide<int64_t, N> * sizeof(int64_t) : kWide<E, N> * sizeof(E)) == 0;
  if (call.interleaved)
    LAUNCH((rotate_kernel<S, E, N, true>), blocks, groups, kThreads, stream, call, wide);
  else
    LAUNCH((rotate_kernel<S, E, N, false>), blocks, groups, kThreads, stream, call, wide);
#ifdef RESONANCE_HOST
  return nullptr;
#else
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

// The widest access that the data is aligned for: of a half of 12 bfloat16, as GPT-NeoX has, 8 bytes.
template <class S, class E>
const char* launch(const Call& call, void* stream) {
  constexpr int size = sizeof(S), most = 16 / size;
  if (aligned(call, size, most)) return launch_n<S, E, most>(call, stream);
  if constexpr (most >= 4)
    if (aligned(call, size, most / 2)) return launch_n<S, E, most / 2>(call, stream);
  if constexpr (most >= 8)
    if (aligned(call, size, most / 4)) return launch_n<S, E, most / 4>(call, stream);
  return launch_n<S, E, 1>(call, stream);
}

}  // namespace

const char* rotate_cuda(const Call& call, int device, void* stream) {
  const OnDevice guard(device);
  if (guard.error) return guard.error;
  switch (call.type) {
    case Type::f32: return launch<float, float>(call, stream);
    case Type::bf16: return launch<bf16, float>(call, stream);
    case Type::f16: return launch<f16, float>(call, stream);
    default: return call.wide ? launch<double, double>(call, stream) : launch<double, float>(call, stream);
  }
}
