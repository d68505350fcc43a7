// A baseline, not a part of the package: the plain loop over tokens that serving engines use on a
// CPU. In place; x is [tokens, heads, D], half-split pairs; cos and sin [tokens, D/2] are widened
// from the data's type, as caches in the model's type are. Built with -O3 -march=native -ffast-math.
#include <torch/extension.h>

#include <cstring>

struct Half {  // bfloat16 by its bits, so that the loop vectorises; rounds to nearest even, knows no NaN
  uint16_t bits;
  Half() = default;
  explicit Half(float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    bits = uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  explicit operator float() const {
    const uint32_t u = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
  }
};

template <class S>
void turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t tokens = x.size(0), heads = x.size(1), half = x.size(2) / 2;
  S* data = static_cast<S*>(x.data_ptr());
  const S *c = static_cast<const S*>(cos.data_ptr()), *s = static_cast<const S*>(sin.data_ptr());
  at::parallel_for(0, tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const S *__restrict ct = c + token % cos.size(0) * half, *__restrict st = s + token % cos.size(0) * half;
      for (int64_t head = 0; head < heads; ++head) {
        S* __restrict a = data + (token * heads + head) * 2 * half;
        S* __restrict b = a + half;
#pragma GCC ivdep
        for (int64_t j = 0; j < half; ++j) {
          const float x = float(a[j]), y = float(b[j]), cj = float(ct[j]), sj = float(st[j]);
          a[j] = S(x * cj - y * sj);
          b[j] = S(x * sj + y * cj);
        }
      }
    }
  });
}

void rotate(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos, const at::Tensor& sin) {
  for (const auto& x : {q, k}) {
    if (x.scalar_type() == at::kFloat) turn<float>(x, cos, sin);
    else turn<Half>(x, cos, sin);
  }
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("rotate", &rotate); }
