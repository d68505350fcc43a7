#pragma once
#include "../rotate.h"

// Turn q and k in one launch on a stream (a cudaStream_t). Returns null, or what went wrong.
const char* rotate_cuda(const Call& call, void* stream);
