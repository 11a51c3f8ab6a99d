/* The path neonbf16: all functions for 64-bit ARM CPUs with bfloat16 instructions (FEAT_BF16). */
#include "targets.h"
#ifdef COMMITTEE_NEONBF16

/* Before the target, for the reason in avx512bf16.cpp. */
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include "table.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+bf16")
#endif

#define BFLOAT16_INSTRUCTIONS
#include "simd_neon.h"

#include "functions.h"

FunctionTable neonbf16_functions() { return all_functions(); }

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
