#define VARIANT avx2
#include "rows.h"
