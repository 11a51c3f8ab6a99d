/* The path avx512: all functions for CPUs with AVX-512, whose products of bfloat16 are missing or slow. */
#include "targets.h"
#ifdef COMMITTEE_AVX512

/* Headers of the standard library come before the target, so that none of their functions is compiled for it: the
 * linker might choose that copy for code that runs on every CPU. */
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include "table.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")
#endif

namespace {
constexpr bool BFLOAT16_INSTRUCTIONS = false;
}
#include "simd_avx512.h"

#include "functions.h"

FunctionTable avx512_functions() { return all_functions(); }

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
