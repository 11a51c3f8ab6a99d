/* The path amx: all functions for CPUs with AMX, AVX-512 and its bfloat16 instructions; and amx-emulated, the same with
 * the tiles emulated, for tests on CPUs without them. */
#include "targets.h"
#ifdef COMMITTEE_AMX

/* Headers of the standard library come before the target, so that none of their functions is compiled for it: the
 * linker might choose that copy for code that runs on every CPU. */
#include <algorithm>
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

#include "tile_functions.h"

FunctionTable amx_functions() { return tile_functions<AmxTiles>(); }
FunctionTable amx_emulated_functions() { return tile_functions<EmulatedTiles>(); }

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
