/* The path neon: all functions for every 64-bit ARM CPU, with products of floats. */
#include "targets.h"
#ifdef COMMITTEE_NEON

constexpr bool BFLOAT16_INSTRUCTIONS = false;

#include "simd_neon.h"

#include "square_functions.h"

FunctionTable neon_functions() { return square_functions(); }

#endif
