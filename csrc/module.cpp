// The kernels of resonance::rotate as one Python function, which resonance/encoding/ops.py calls.
//
// The module includes and links no torch: pybind11 for the module, DLPack's C exchange for a tensor's
// memory and two C functions of torch's stable ABI for its threads. So it builds where no torch is,
// and one build serves every torch from 2.10. Rules are checked here without a word: where one is
// broken `rotate` returns False and the reference says which.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>

#include "dlpack.h"
#include "rotate.h"

Threads threads;

namespace {

const DLExchange* exchange;
PyObject *tensor_type, *parameter_type;

enum Argument { Q, K, Q_OUT, K_OUT, COS, SIN, START, MODULUS, POSITIONS, kTensors };
enum Scalar { LIMIT = kTensors, INTERLEAVED, CONJUGATE, AMPLITUDE, FRESH, EXACT, kArguments };
enum Kind : int { i64 = 0x0040, f16_ = 0x0210, f32_ = 0x0220, f64_ = 0x0240, bf16_ = 0x0410 };

// One tensor argument; absent where None was given.
struct View : DLTensor {
  bool given = false;
  int kind() const { return code << 8 | bits; }
  int64_t size(int i) const { return shape[i < 0 ? ndim + i : i]; }
  int64_t stride(int i) const { return strides[i < 0 ? ndim + i : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  bool contiguous_last() const { return numel() == 0 || size(-1) <= 1 || stride(-1) == 1; }
  bool same_shape(const View& x) const { return ndim == x.ndim && std::equal(shape, shape + ndim, x.shape); }
  bool on(const View& x) const { return device_type == x.device_type && device_id == x.device_id; }
  template <class T> T* at() const { return reinterpret_cast<T*>(static_cast<char*>(data) + byte_offset); }
  int64_t bytes() const { return bits / 8; }
  intptr_t begin() const { return reinterpret_cast<intptr_t>(at<char>()); }
  // Bytes from the first element to behind the last.
  int64_t span() const {
    int64_t last = 0;
    for (int i = 0; i < ndim; ++i) last += (size(i) - 1) * stride(i);
    return numel() ? (last + 1) * bytes() : 0;
  }
};

// The dimensions in front of the last that have neighbours in x or y (of as many dimensions), widest
// stride first; -1 where one is not wider than all it holds, or x and y differ in a stride.
int nested(const View& x, const View& y, int (&order)[4], int64_t (&inner)[4]) {
  int n = 0;
  for (int i = 0; i + 1 < x.ndim; ++i)
    if (x.size(i) > 1 || y.size(i) > 1) order[n++] = i;
  const auto stride = [&](int i) { return x.size(i) > 1 ? x.stride(i) : y.stride(i); };
  std::sort(order, order + n, [&](int i, int j) { return stride(i) > stride(j); });
  int64_t held = x.size(-1);
  for (int i = n - 1; i >= 0; --i) {
    const int d = order[i];
    if (stride(d) < held || (x.size(d) > 1 && y.size(d) > 1 && x.stride(d) != y.stride(d))) return -1;
    inner[i] = stride(d);
    held += (std::max(x.size(d), y.size(d)) - 1) * stride(d);
  }
  return n;
}

// Whether rows of x and of y that begin `apart` elements later share memory: per dimension only two
// differences of index bring them near each other.
bool meet(const View& x, const View& y, const int* order, const int64_t* stride, int n, int64_t apart) {
  if (n == 0) return -y.size(-1) < apart && apart < x.size(-1);
  const int64_t near = apart / *stride - (apart % *stride < 0);
  for (int64_t m = near; m <= near + 1; ++m)
    if (-y.size(*order) < m && m < x.size(*order) &&
        meet(x, y, order + 1, stride + 1, n - 1, apart - m * *stride))
      return true;
  return false;
}

// May write into x while y is read or written? Tables and positions by their ranges of memory; data,
// which may be slices of one projection, element by element where the strides are the same.
bool overlap(const View& x, const View& y) {
  if (!x.numel() || !y.given || !y.numel()) return false;
  const int64_t apart = y.begin() - x.begin();
  if (apart >= x.span() || -apart >= y.span()) return false;
  int order[4];
  int64_t stride[4];
  const int n = x.ndim == y.ndim && x.bits == y.bits && apart % x.bytes() == 0 ? nested(x, y, order, stride) : -1;
  return n < 0 || meet(x, y, order, stride, n, apart / x.bytes());
}

bool outputs_fit(const View* v, bool in_place) {
  for (const int i : {Q, K}) {
    const View &x = v[i], &y = v[i + 2];
    int order[4];
    int64_t stride[4];
    if (!y.same_shape(x) || y.kind() != x.kind() || !y.on(x) || !y.contiguous_last()) return false;
    if (y.numel() && nested(y, y, order, stride) < 0) return false;
    for (int j = in_place ? COS : Q; j < kTensors; ++j)
      if (j != Q_OUT && j != K_OUT && overlap(y, v[j])) return false;
  }
  return !overlap(v[Q_OUT], v[K_OUT]);
}

// The rules of reference.check_call, and the call's description.
bool describe(const View* v, PyObject* const* args, Call& call) {
  const View &q = v[Q], &k = v[K], &cos = v[COS], &sin = v[SIN], &start = v[START], &modulus = v[MODULUS],
             &positions = v[POSITIONS];
  if (q.ndim != 4 || k.ndim != 4 || !q.contiguous_last() || !k.contiguous_last() || q.kind() != k.kind()) return false;
  for (const int i : {0, 2, 3})
    if (q.size(i) != k.size(i)) return false;
  for (int i = K; i < kTensors; ++i)
    if (v[i].given && !v[i].on(q)) return false;
  switch (q.kind()) {
    case f32_: call.type = Type::f32; break;
    case bf16_: call.type = Type::bf16; break;
    case f16_: call.type = Type::f16; break;
    case f64_: call.type = Type::f64; break;
    default: return false;
  }
  call.wide = cos.kind() == f64_;
  if (cos.kind() != sin.kind() || (cos.kind() != f32_ && !call.wide) || (call.wide && call.type != Type::f64)) return false;
  if (!cos.same_shape(sin) || cos.ndim == 0 || !std::equal(cos.strides, cos.strides + cos.ndim, sin.strides)) return false;
  if (!cos.contiguous_last() || start.given != modulus.given) return false;
  call.batch = q.size(0);
  call.num_positions = q.size(2);
  call.head_dim = q.size(3);
  const int64_t limit = PyLong_AsLongLong(args[LIMIT]);
  if (start.given) {
    if (cos.ndim != 1 || start.ndim != 1 || !start.same_shape(modulus) || start.kind() != i64 || modulus.kind() != i64 ||
        !start.contiguous_last() || !modulus.contiguous_last() || cos.numel() >= int64_t(1) << 31)
      return false;
    call.half = start.size(0);
    call.start = start.at<int64_t>();
    call.modulus = modulus.at<int64_t>();
    call.limit = limit < 0 ? INT64_MAX : limit;
    call.entries = cos.numel();
  } else {
    const bool rows = cos.ndim == 3;
    if (cos.ndim != 2 && !rows) return false;
    if (rows && (cos.size(0) != call.batch || cos.size(1) != call.num_positions || positions.given)) return false;
    call.half = cos.size(-1);
    call.table_b = rows ? cos.stride(0) : 0;
    call.table_t = cos.stride(-2);
    call.limit = cos.size(-2);
  }
  if (2 * call.half > call.head_dim || call.half > 4096) return false;
  if (positions.given) {
    const bool each = positions.ndim == 2 && positions.size(0) == call.batch;
    if (positions.kind() != i64 || !(each || positions.ndim == 1) || positions.size(-1) != call.num_positions) return false;
    call.positions = positions.at<int64_t>();
    call.position_b = each ? positions.stride(0) : 0;
    call.position_t = positions.stride(-1);
  }
  call.cos = cos.at<void>();
  call.sin = sin.at<void>();
  call.interleaved = PyObject_IsTrue(args[INTERLEAVED]);
  call.conjugate = PyObject_IsTrue(args[CONJUGATE]);
  call.amplitude = PyFloat_AsDouble(args[AMPLITUDE]);
  for (const int i : {Q, K}) {
    const View &x = v[i], &y = v[i + 2];
    call.side[i] = {x.at<void>(), y.at<void>(), x.size(1),   x.stride(0), x.stride(1),
                    x.stride(2),  y.stride(0),  y.stride(1), y.stride(2)};
  }
  return !PyErr_Occurred();
}

// Only a host can look at values without waiting for the device; the CUDA kernel checks for itself.
bool values_fit(const Call& call) {
  for (int64_t j = 0; call.start && j < call.half; ++j)
    if (call.start[j] < 0 || call.modulus[j] < 1 || call.start[j] > call.entries - call.modulus[j]) return false;
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
  return least >= 0 && most < call.limit;
}

// New memory comes page by page, and a trap for every 4 KiB costs more than their rotation: large
// outputs ask for huge pages, as numpy's arrays do.
void ask_for_huge_pages(const View& y) {
#ifdef MADV_HUGEPAGE
  constexpr intptr_t huge = 2 << 20;
  if (y.span() < 2 * huge) return;
  const intptr_t first = (y.begin() + huge - 1) / huge * huge, end = (y.begin() + y.span()) / huge * huge;
  madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // a hint: may fail
#endif
}

PyObject* rotate(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != kArguments) return PyErr_Format(PyExc_TypeError, "rotate takes %d arguments, got %zd", kArguments, count);
  const bool in_place = args[Q] == args[Q_OUT] && args[K] == args[K_OUT], exact = PyObject_IsTrue(args[EXACT]);
  View v[kTensors];
  for (int i = 0; i < kTensors; ++i) {
    if (i >= START && args[i] == Py_None) continue;
    if (in_place && (i == Q_OUT || i == K_OUT)) {
      v[i] = v[i - 2];
      continue;
    }
    PyObject* const type = reinterpret_cast<PyObject*>(Py_TYPE(args[i]));
    if (exact ? type != tensor_type && type != parameter_type
              : !PyType_IsSubtype(Py_TYPE(args[i]), reinterpret_cast<PyTypeObject*>(tensor_type)))
      Py_RETURN_NONE;
    if (exchange->view(args[i], &v[i])) {  // a tensor without memory of its own: meta, sparse
      PyErr_Clear();
      Py_RETURN_NONE;
    }
    v[i].given = true;
    if (!v[i].data && v[i].numel()) Py_RETURN_NONE;  // nor zeros that are only promised
  }
#ifdef RESONANCE_CUDA
  if (v[Q].device_type != kCpu && v[Q].device_type != kCuda) Py_RETURN_NONE;
#else
  if (v[Q].device_type != kCpu) Py_RETURN_NONE;
#endif
  Call call{};
  const bool fresh = PyObject_IsTrue(args[FRESH]);
  if (!describe(v, args, call) || (!fresh && !outputs_fit(v, in_place))) return PyErr_Occurred() ? nullptr : PyBool_FromLong(0);
  const int64_t total = v[Q].numel() + v[K].numel();
  if (total == 0) Py_RETURN_TRUE;
  if (v[Q].device_type == kCpu) {
    if (!values_fit(call)) Py_RETURN_FALSE;
    if (fresh) std::for_each(v + Q_OUT, v + COS, ask_for_huge_pages);
    PyThreadState* const state = total < 1 << 16 ? nullptr : PyEval_SaveThread();  // it costs a decoding step 50 ns
    rotate_cpu(call, !fresh);
    if (state) PyEval_RestoreThread(state);
    Py_RETURN_TRUE;
  }
#ifdef RESONANCE_CUDA
  void* stream;
  if (exchange->stream(kCuda, v[Q].device_id, &stream)) return nullptr;
  const char* error = rotate_cuda(call, v[Q].device_id, stream);
  if (error) return PyErr_Format(PyExc_RuntimeError, "resonance::rotate could not be launched: %s", error);
#endif
  Py_RETURN_TRUE;
}

// A call through pybind11's own dispatch takes half a microsecond more, a third of a decoding step's.
PyMethodDef fast[] = {
    {"rotate", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(rotate)), METH_FASTCALL,
     "rotate(q, k, q_out, k_out, cos, sin, start, modulus, positions, num_positions, interleaved, conjugate, "
     "amplitude, fresh, exact)\n\n"
     "Turn q and k into q_out and k_out (the same objects: in place). Returns True; False where a rule of "
     "resonance.encoding.reference is broken; None, having done nothing, where an argument is no tensor with memory "
     "on a device of this build or, with exact, of a class other than Tensor and Parameter."},
    {}};

}  // namespace

PYBIND11_MODULE(_op, m) {
  m.doc() = "The compiled kernels of resonance::rotate.";
  const pybind11::object tensor = pybind11::module_::import("torch").attr("Tensor");
  tensor_type = pybind11::object(tensor).release().ptr();
  parameter_type = pybind11::object(pybind11::module_::import("torch.nn").attr("Parameter")).release().ptr();
  if (pybind11::hasattr(tensor, "__dlpack_c_exchange_api__"))
    exchange = pybind11::capsule(tensor.attr("__dlpack_c_exchange_api__")).get_pointer<const DLExchange>();
#ifdef __APPLE__
  void* const torch = dlopen("@rpath/libtorch_cpu.dylib", RTLD_LAZY | RTLD_NOLOAD);
#else
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);  // torch has loaded it
#endif
  if (torch) {
    threads.count = reinterpret_cast<decltype(threads.count)>(dlsym(torch, "torch_get_num_threads"));
    threads.share = reinterpret_cast<decltype(threads.share)>(dlsym(torch, "torch_parallel_for"));
  }
  if (!exchange || exchange->major != 1 || !exchange->view || !threads.count || !threads.share)
    throw pybind11::import_error("it needs torch >= 2.10, whose tensors C can read");
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
  if (PyModule_AddFunctions(m.ptr(), fast)) throw pybind11::error_already_set();
}
