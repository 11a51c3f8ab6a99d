/* The instruction sets that this compiler can make functions for, and who has them. */
#pragma once
#include "table.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && (__GNUC__ >= 11 || defined(__clang__))
#define COMMITTEE_AVX512
FunctionTable avx512_functions(); /* to be called only on CPUs that have it */
#endif
