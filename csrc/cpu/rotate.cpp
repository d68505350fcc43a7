// One call on the CPU: choose a variant, cut the work into blocks of positions, look the tables of a
// block up once and turn the rows of every sequence and head by them.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace {

// cos (and sin) of one block: 16 KiB in float32, so that both stay in the nearest cache.
constexpr int64_t kBlock = 4096;
// Below so many elements a second thread costs more than it saves.
constexpr int64_t kGrain = 1 << 15;
// Outputs of this many bytes leave the cache before anybody reads them: write past it.
constexpr int64_t kStreamBytes = 4 << 20;

const Kernels* choose_variant() {
  const char* asked = std::getenv("RESONANCE_VARIANT");  // for tests and benchmarks
  const auto allowed = [&](const char* name) { return !asked || std::strcmp(asked, name) == 0; };
#if defined(__x86_64__)
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return kernels_avx512();
  if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return kernels_avx2();
#endif
  return kernels_portable();
}

int64_t size_of(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }

// Streaming stores want whole aligned lines.
bool streams(const Call& call, const Side& side, int64_t size) {
  const int64_t strides = side.out_b | side.out_h | side.out_t | call.half;
  return side.in != side.out && call.batch * side.heads * call.num_positions * call.head_dim * size >= kStreamBytes &&
         reinterpret_cast<uintptr_t>(side.out) % 64 == 0 && strides * size % 64 == 0 &&
         call.head_dim == 2 * call.half;
}

const Kernels& cpu_kernels() {
  static const Kernels* kernels = choose_variant();
  return *kernels;
}

}  // namespace

const char* cpu_variant() { return cpu_kernels().name; }

void rotate_cpu(const Call& call, bool warm) {
  const int64_t size = size_of(call.type), exact = call.type == Type::f64 ? 8 : 4;
  const int64_t heads = call.side[0].heads + call.side[1].heads;
  const int64_t total = call.batch * call.num_positions * heads * call.head_dim;
  if (total == 0) return;
  uint32_t num_threads = 1;
  if (total >= 2 * kGrain) threads.count(&num_threads);
  int64_t block = std::max<int64_t>(1, kBlock / std::max<int64_t>(call.half, 1));
  block = std::min(block, call.num_positions);
  if (num_threads > 1 && call.batch < num_threads) {  // few sequences: let every thread have a block
    const int64_t parts = (num_threads + call.batch - 1) / call.batch;
    block = std::min(block, (call.num_positions + parts - 1) / parts);
  }
  const int64_t blocks = (call.num_positions + block - 1) / block;
  // Tables that need no look-up are read where they lie; bfloat16 data wants its own order.
  const bool direct = !call.start && !call.positions && call.amplitude == 1 && !call.conjugate &&
                      call.wide == (exact == 8) && call.type != Type::bf16;
  const bool own_table = call.table_b != 0 || call.position_b != 0;  // one for every sequence
  const auto look = cpu_kernels().look(call.type, call.wide, call.interleaved);
  Rows rows[2];
  const char* in_end[2];
  for (int i = 0; i < 2; ++i) {
    const Side& side = call.side[i];
    if (side.heads == 0) continue;  // and no memory
    rows[i] = cpu_kernels().rows(call.type, call.interleaved, call.half, warm && streams(call, side, size));
    in_end[i] = static_cast<const char*>(side.in) +
                ((call.batch - 1) * side.in_b + (side.heads - 1) * side.in_h + (call.num_positions - 1) * side.in_t +
                 call.head_dim) * size;
  }

  const auto work = [&](int64_t begin, int64_t end) {
    alignas(64) char scratch[2][kBlock * 8];
    int64_t held_block = -1, held_b = -1;
    for (int64_t task = begin; task < end; ++task) {  // blocks outside, so that a block serves every b
      const int64_t b = task % call.batch, t = task / call.batch * block;
      const int64_t count = std::min(block, call.num_positions - t);
      const char *cos = scratch[0], *sin = scratch[1];
      int64_t table_t = call.half;
      if (direct) {
        const int64_t offset = (b * call.table_b + t * call.table_t) * exact;
        cos = static_cast<const char*>(call.cos) + offset;
        sin = static_cast<const char*>(call.sin) + offset;
        table_t = call.table_t;
      } else if (held_block != t || (own_table && held_b != b)) {
        look(call, b, t, count, scratch[0], scratch[1]);
        held_block = t;
        held_b = b;
      }
      for (int i = 0; i < 2; ++i) {
        const Side& side = call.side[i];
        if (side.heads == 0) continue;
        const char* in = static_cast<const char*>(side.in) + (b * side.in_b + t * side.in_t) * size;
        char* out = static_cast<char*>(side.out) + (b * side.out_b + t * side.out_t) * size;
        if (count == 1 || side.in_h < side.in_t) {  // [B, T, H, D]: the heads of a position are neighbours
          for (int64_t row = 0; row < count; ++row)
            rows[i](side.heads, in + row * side.in_t * size, side.in_h, in_end[i], out + row * side.out_t * size, side.out_h,
                    cos + row * table_t * exact, sin + row * table_t * exact, 0, call.half, call.head_dim);
        } else {
          for (int64_t head = 0; head < side.heads; ++head)
            rows[i](count, in + head * side.in_h * size, side.in_t, in_end[i], out + head * side.out_h * size, side.out_t, cos,
                    sin, table_t, call.half, call.head_dim);
        }
      }
    }
  };
  if (num_threads == 1) {
    work(0, blocks * call.batch);
  } else {
    const int64_t each = std::max<int64_t>(total / (blocks * call.batch), 1);
    threads.share(
        0, blocks * call.batch, (kGrain + each - 1) / each,
        [](int64_t begin, int64_t end, void* work_) { (*static_cast<const decltype(work)*>(work_))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&work)));
  }
}
