#define VARIANT portable
#include "rows.h"
