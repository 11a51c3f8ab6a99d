/* The path avx2: all functions for CPUs with AVX2 and FMA. */
#include "targets.h"
#ifdef COMMITTEE_AVX2

/* Headers of the standard library come before the target, so that none of their functions is compiled for it: the
 * linker might choose that copy for code that runs on every CPU. */
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include "table.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include "simd_avx2.h"

#include "functions.h"

FunctionTable avx2_functions() { return all_functions(); }

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
