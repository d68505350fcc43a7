// The kernels of resonance::rotate, rotate_ and rotate_into, under the schemas that
// resonance/encoding/ops.py defines: its rules in the same words, then one Call. Also their autograd:
// from C++, since one from Python costs a decoding step more than the rotation.
//
// The module binds tensors through libtorch_python, so it serves the one torch and Python that it was
// built with. One wheel for many (torch's stable ABI) would forbid the call past the dispatcher
// (`rotate_` below), which halves the cost of a decoding step's rotation. Tables are made by numpy in
// rotary.py, with the op and without: a second constructor here could differ from it in a last bit.
#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "rotate.h"

namespace {

using at::Tensor;
using std::optional;
using Pair = std::tuple<Tensor, Tensor>;

// The arguments behind q and k, in the schema's order.
struct Table {
  const Tensor &cos, &sin;
  const optional<Tensor>&start, &modulus, &positions;
  int64_t num_positions;
  bool interleaved, conjugate;
  double amplitude;
};
#define TABLE_PARAMETERS                                                                                 \
  const Tensor &cos, const Tensor &sin, const optional<Tensor>&start, const optional<Tensor>&modulus,    \
      const optional<Tensor>&positions, int64_t num_positions, bool interleaved, bool conjugate, double amplitude
#define TABLE_ARGUMENTS cos, sin, start, modulus, positions, num_positions, interleaved, conjugate, amplitude

bool has(const optional<Tensor>& x) { return x.has_value() && x->defined(); }
bool contiguous_last(const Tensor& x) { return x.numel() == 0 || x.size(-1) <= 1 || x.stride(-1) == 1; }

Type type_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat: return Type::f32;
    case at::kBFloat16: return Type::bf16;
    case at::kHalf: return Type::f16;
    case at::kDouble: return Type::f64;
    default:
      TORCH_CHECK_VALUE(false, "q and k must have one dtype of float32, bfloat16, float16, float64, got ",
                        x.scalar_type());
  }
}

void check_device(const char* name, const Tensor& x, const Tensor& q) {
  TORCH_CHECK_VALUE(x.device() == q.device(), name, " must be on q's device ", q.device(), ", got ", x.device(),
                    "; move it there");
}

void check_data(const Tensor& q, const Tensor& k) {
  for (const auto& [name, x] : {std::pair<const char*, const Tensor&>{"q", q}, {"k", k}}) {
    TORCH_CHECK_VALUE(x.dim() == 4, name, " must be [B, H, T, D], got ", x.dim(), " dimensions");
    TORCH_CHECK_VALUE(contiguous_last(x), name, " must have a contiguous last dimension, got stride ", x.stride(3),
                      "; call contiguous");
  }
  TORCH_CHECK_VALUE(q.scalar_type() == k.scalar_type(),
                    "q and k must have one dtype of float32, bfloat16, float16, float64, got ", q.scalar_type(),
                    " and ", k.scalar_type());
  TORCH_CHECK_VALUE(q.size(0) == k.size(0) && q.size(2) == k.size(2) && q.size(3) == k.size(3),
                    "q and k may differ in heads only, got ", q.sizes(), " and ", k.sizes(), " as [B, H, T, D]");
  check_device("k", k, q);
}

void check_table(const Tensor& q, const Table& table) {
  const Tensor &cos = table.cos, &sin = table.sin;
  check_device("cos", cos, q);
  check_device("sin", sin, q);
  TORCH_CHECK_VALUE(cos.scalar_type() == sin.scalar_type() && cos.sizes() == sin.sizes() &&
                        (cos.scalar_type() == at::kFloat || cos.scalar_type() == at::kDouble),
                    "cos and sin must have one shape and one dtype, float32 or float64, got ", cos.sizes(), " ",
                    cos.scalar_type(), " and ", sin.sizes(), " ", sin.scalar_type());
  TORCH_CHECK_VALUE(cos.scalar_type() == at::kFloat || q.scalar_type() == at::kDouble,
                    "cos and sin must be float32 for ", q.scalar_type(), " data, got float64; make the table float32");
  TORCH_CHECK_VALUE(cos.strides() == sin.strides() && (cos.dim() == 0 || contiguous_last(cos)),
                    "cos and sin must have the same strides and a contiguous last dimension; call contiguous");
  TORCH_CHECK_VALUE(has(table.start) == has(table.modulus),
                    "start and modulus must be given together, got one of them; both make a packed table");
  const int64_t batch = q.size(0), num_positions = q.size(2), head_dim = q.size(3);
  int64_t half;
  if (has(table.start)) {
    const Tensor &start = *table.start, &modulus = *table.modulus;
    check_device("start", start, q);
    check_device("modulus", modulus, q);
    TORCH_CHECK_VALUE(cos.dim() == 1 && start.dim() == 1 && start.sizes() == modulus.sizes(),
                      "a packed table has cos, sin [P] and start, modulus [R/2], got ", cos.sizes(), ", ",
                      start.sizes(), " and ", modulus.sizes());
    TORCH_CHECK_VALUE(start.scalar_type() == at::kLong && modulus.scalar_type() == at::kLong,
                      "start and modulus must be int64, got ", start.scalar_type(), " and ", modulus.scalar_type());
    TORCH_CHECK_VALUE(contiguous_last(start) && contiguous_last(modulus) && cos.numel() < (int64_t(1) << 31),
                      "start and modulus must be contiguous, and a packed table shorter than 2^31 entries");
    half = start.size(0);
  } else {
    TORCH_CHECK_VALUE(cos.dim() == 2 || cos.dim() == 3, "a dense table is [N, R/2] or [B, T, R/2], got ", cos.sizes());
    TORCH_CHECK_VALUE(
        cos.dim() == 2 || (cos.size(0) == batch && cos.size(1) == num_positions && !has(table.positions)),
        "a table [B, T, R/2] must fit q's B = ", batch, " and T = ", num_positions, " and takes no positions, got ",
        cos.sizes());
    half = cos.size(-1);
  }
  TORCH_CHECK_VALUE(2 * half <= head_dim && half <= 4096,
                    "the table's rotary dimension must be at most D = ", head_dim, " and 8192, got ", 2 * half,
                    "; make the table for this head dimension");
  if (has(table.positions)) {
    const Tensor& positions = *table.positions;
    check_device("positions", positions, q);
    const bool one = positions.dim() == 1 && positions.size(0) == num_positions;
    const bool each = positions.dim() == 2 && positions.size(0) == batch && positions.size(1) == num_positions;
    TORCH_CHECK_VALUE(positions.scalar_type() == at::kLong && (one || each),
                      "positions must be int64 [T] or [B, T] with B = ", batch, ", T = ", num_positions, ", got ",
                      positions.sizes(), " ", positions.scalar_type());
  }
}

void check_out(const Tensor& x, const Tensor& y) {
  TORCH_CHECK_VALUE(y.sizes() == x.sizes() && y.scalar_type() == x.scalar_type() && y.device() == x.device() &&
                        contiguous_last(y),
                    "out must have its input's shape ", x.sizes(), ", dtype ", x.scalar_type(),
                    " and device, and a contiguous last dimension, got ", y.sizes(), ", ", y.scalar_type(), " on ",
                    y.device());
}

Side side_of(const Tensor& x, const Tensor& y) {
  return {x.const_data_ptr(), y.mutable_data_ptr(), x.size(1),   x.stride(0),
          x.stride(1),        x.stride(2),          y.stride(0), y.stride(1), y.stride(2)};
}

// Only a host can look at values without waiting for the device; the CUDA kernel checks for itself.
void check_values(const Call& call) {
  for (int64_t j = 0; call.start && j < call.half; ++j)
    TORCH_CHECK_VALUE(call.start[j] >= 0 && call.modulus[j] >= 1 && call.start[j] <= call.entries - call.modulus[j],
                      "start and modulus must stay within the packed table's ", call.entries,
                      " entries; pack it again");
  int64_t least = 0, most = call.num_positions - 1;
  if (call.positions && call.batch * call.num_positions > 0) {
    least = most = call.positions[0];
    for (int64_t b = 0; b < (call.position_b ? call.batch : 1); ++b)
      for (int64_t t = 0; t < call.num_positions; ++t) {
        const int64_t m = call.positions[b * call.position_b + t * call.position_t];
        least = std::min(least, m);
        most = std::max(most, m);
      }
  }
  TORCH_CHECK_VALUE(least >= 0, "positions must be >= 0, got ", least);
  TORCH_CHECK_VALUE(most < call.limit, "positions must be < num_positions = ", call.limit, ", got ", most,
                    "; make the table longer");
}

void run(const Tensor& q, const Tensor& k, const Tensor& q_out, const Tensor& k_out, const Table& table, bool warm) {
  check_data(q, k);
  check_table(q, table);
  const Tensor& cos = table.cos;
  const bool packed = has(table.start), rows = cos.dim() == 3;
  const bool each = has(table.positions) && table.positions->dim() == 2;
  Call call{};
  call.side[0] = side_of(q, q_out);
  call.side[1] = side_of(k, k_out);
  call.batch = q.size(0);
  call.num_positions = q.size(2);
  call.head_dim = q.size(3);
  call.half = packed ? table.start->size(0) : cos.size(-1);
  call.type = type_of(q);
  call.interleaved = table.interleaved;
  call.conjugate = table.conjugate;
  call.amplitude = table.amplitude;
  call.cos = cos.const_data_ptr();
  call.sin = table.sin.const_data_ptr();
  call.wide = cos.scalar_type() == at::kDouble;
  call.table_b = rows ? cos.stride(0) : 0;
  call.table_t = packed ? 0 : cos.stride(-2);
  call.start = packed ? table.start->const_data_ptr<int64_t>() : nullptr;
  call.modulus = packed ? table.modulus->const_data_ptr<int64_t>() : nullptr;
  call.positions = has(table.positions) ? table.positions->const_data_ptr<int64_t>() : nullptr;
  call.position_b = each ? table.positions->stride(0) : 0;
  call.position_t = has(table.positions) ? table.positions->stride(-1) : 0;
  call.limit = !packed ? cos.size(-2) : table.num_positions < 0 ? INT64_MAX : table.num_positions;
  call.entries = packed ? cos.numel() : 0;
  if (q.numel() + k.numel() == 0) return;
  if (q.is_cpu()) {
    check_values(call);
    rotate_cpu(call, warm);
    return;
  }
#ifdef RESONANCE_CUDA
  const c10::OptionalDeviceGuard guard(q.device());
  const c10::Stream stream = c10::impl::VirtualGuardImpl(q.device().type()).getStream(q.device());
  const char* error = rotate_cuda(call, stream.native_handle());
  TORCH_CHECK(!error, "resonance::rotate could not be launched: ", error);
#else
  TORCH_CHECK(false, "resonance::rotate has no kernel for ", q.device());
#endif
}

// New memory comes page by page, and a trap for every 4 KiB costs more than their rotation: large
// outputs ask for huge pages, as numpy's arrays do.
Tensor fresh_like(const Tensor& x) {
  Tensor y = at::empty_like(x);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t huge = 2 << 20;
  if (y.is_cpu() && y.nbytes() >= 2 * huge) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(y.mutable_data_ptr()), end = begin + y.nbytes();
    const uintptr_t first = (begin + huge - 1) / huge * huge;
    madvise(reinterpret_cast<void*>(first), end / huge * huge - first, MADV_HUGEPAGE);  // a hint: may fail
  }
#endif
  return y;
}

Pair rotate(const Tensor& q, const Tensor& k, TABLE_PARAMETERS) {
  check_data(q, k);
  Pair out{fresh_like(q), fresh_like(k)};
  run(q, k, std::get<0>(out), std::get<1>(out), {TABLE_ARGUMENTS}, /*warm=*/false);
  return out;
}

// Nothing that is written into has a gradient; and who saved the old values for backward must find
// that they changed, as with torch's own operators.
void check_no_gradient(std::initializer_list<const Tensor*> all) {
  for (const Tensor* x : all)
    TORCH_CHECK_VALUE(!x->requires_grad() || !at::GradMode::is_enabled(), "in_place and out have no gradient, but q, "
                      "k or out requires one; leave them out, or use no_grad");
}
void mark_written(const Tensor& x) { x.unsafeGetTensorImpl()->bump_version(); }

void rotate_(const Tensor& q, const Tensor& k, TABLE_PARAMETERS) {
  check_no_gradient({&q, &k});
  at::assert_no_internal_overlap(q);
  at::assert_no_internal_overlap(k);
  at::assert_no_overlap(q, k);
  run(q, k, q, k, {TABLE_ARGUMENTS}, /*warm=*/true);
  mark_written(q);
  mark_written(k);
}

void rotate_into(const Tensor& q, const Tensor& k, const Tensor& q_out, const Tensor& k_out, TABLE_PARAMETERS) {
  check_out(q, q_out);
  check_out(k, k_out);
  check_no_gradient({&q, &k, &q_out, &k_out});
  at::assert_no_internal_overlap(q_out);
  at::assert_no_internal_overlap(k_out);
  at::assert_no_overlap(q_out, k_out);
  for (const Tensor* x : {&q, &k}) {
    at::assert_no_overlap(q_out, *x);
    at::assert_no_overlap(k_out, *x);
  }
  run(q, k, q_out, k_out, {TABLE_ARGUMENTS}, /*warm=*/true);
  mark_written(q_out);
  mark_written(k_out);
}

Pair dispatch(const Tensor& q, const Tensor& k, TABLE_PARAMETERS) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("resonance::rotate", "").typed<decltype(rotate)>();
  return op.call(q, k, TABLE_ARGUMENTS);
}

// Gradients may come expanded, with stride 0 where the op wants 1.
Tensor with_contiguous_last(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

// A rotation's transpose is the rotation back. Backward goes through the dispatcher, so it has a
// gradient in turn.
struct Rotate : torch::autograd::Function<Rotate> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx, const Tensor& q,
                                                const Tensor& k, TABLE_PARAMETERS) {
    ctx->save_for_backward({cos, sin, start.value_or(Tensor()), modulus.value_or(Tensor()),
                            positions.value_or(Tensor())});
    ctx->saved_data["num_positions"] = num_positions;
    ctx->saved_data["interleaved"] = interleaved;
    ctx->saved_data["conjugate"] = conjugate;
    ctx->saved_data["amplitude"] = amplitude;
    at::AutoDispatchBelowADInplaceOrView below;
    auto [q_out, k_out] = dispatch(q, k, TABLE_ARGUMENTS);
    return {q_out, k_out};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto maybe = [&](int i) { return saved[i].defined() ? optional<Tensor>(saved[i]) : std::nullopt; };
    auto [q, k] = dispatch(with_contiguous_last(grads[0]), with_contiguous_last(grads[1]), saved[0], saved[1],
                           maybe(2), maybe(3), maybe(4), ctx->saved_data["num_positions"].toInt(),
                           ctx->saved_data["interleaved"].toBool(), !ctx->saved_data["conjugate"].toBool(),
                           ctx->saved_data["amplitude"].toDouble());
    return {q, k, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  }
};

Pair rotate_autograd(const Tensor& q, const Tensor& k, TABLE_PARAMETERS) {
  if (at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad())) {
    auto out = Rotate::apply(q, k, TABLE_ARGUMENTS);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return dispatch(q, k, TABLE_ARGUMENTS);
}

}  // namespace

TORCH_LIBRARY_IMPL(resonance, CPU, m) {
  m.impl("rotate", rotate);
  m.impl("rotate_", rotate_);
  m.impl("rotate_into", rotate_into);
}
#ifdef RESONANCE_CUDA
TORCH_LIBRARY_IMPL(resonance, CUDA, m) {
  m.impl("rotate", rotate);
  m.impl("rotate_", rotate_);
  m.impl("rotate_into", rotate_into);
}
#endif
TORCH_LIBRARY_IMPL(resonance, Autograd, m) {
  m.impl("rotate", rotate_autograd);
  m.impl("rotate_", torch::CppFunction::makeFallthrough());
  m.impl("rotate_into", torch::CppFunction::makeFallthrough());
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "The compiled kernels of resonance::rotate.";
  m.def("build", [] {
    pybind11::dict build;
    build["variant"] = cpu_variant();
    build["compiler"] = __VERSION__;
#ifdef RESONANCE_CUDA
    build["cuda"] = RESONANCE_CUDA;
#else
    build["cuda"] = pybind11::none();
#endif
    return build;
  }, "What was built, and which CPU variant runs here.");
  m.def("rotate_", rotate_,
        "resonance::rotate_ past the dispatcher, for decoding: a microsecond less a call, no compile, no gradient. "
        "Holds the GIL.");
}
