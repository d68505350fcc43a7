#pragma once
#include "kernels.h"

// The variant that this machine runs.
const Kernels& cpu_kernels();
// Turn q and k. warm: the outputs are memory that was written before; only there do stores past the
// cache pay (fresh pages are zeroed through it anyway).
void rotate_cpu(const Call& call, bool warm);
