/* The paths: the ways to compute on a CPU that this compiler can make functions for. See functions.h for how to add
 * one. */
#pragma once
#include "table.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 11))
#define COMMITTEE_AVX512BF16
#define COMMITTEE_AMX
#define COMMITTEE_AVX512
#define COMMITTEE_AVX2
#endif

#if defined(__aarch64__) && defined(__GNUC__) && !defined(__ARM_BIG_ENDIAN)
#define COMMITTEE_NEON
#if (defined(__linux__) || defined(__APPLE__)) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 11)
#define COMMITTEE_NEONBF16
#endif
#endif

struct Path {
  const char *name;
  bool (*supported)();          /* by this CPU and its operating system */
  bool (*preferred)();          /* to the paths after it, where it is supported; otherwise it is used when asked for */
  FunctionTable (*functions)(); /* their code is to be called only where the path is supported */
  bool bfloat16_products;       /* of a convolution and of dense layers; else of floats */
};

struct PathList {
  const Path *paths;
  int count;
};

PathList all_paths(); /* those compiled, the best first */

/* Each in the file of its name. */
FunctionTable amx_functions();
FunctionTable amx_emulated_functions();
FunctionTable avx512bf16_functions();
FunctionTable avx512_functions();
FunctionTable avx2_functions();
FunctionTable neonbf16_functions();
FunctionTable neon_functions();
