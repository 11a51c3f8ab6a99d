/* The path avx512bf16: all functions for CPUs with AVX-512 and its bfloat16 instructions. */
#include "targets.h"
#ifdef COMMITTEE_AVX512BF16

/* Headers of the standard library come before the target, so that none of their functions is compiled for it: the
 * linker might choose that copy for code that runs on every CPU. */
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include "table.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))),                 \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif

namespace {
constexpr bool BFLOAT16_INSTRUCTIONS = true;
}
#include "simd_avx512.h"

#include "functions.h"

FunctionTable avx512bf16_functions() { return all_functions(); }

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
