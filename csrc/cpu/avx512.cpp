#define VARIANT avx512
#include "rows.h"
