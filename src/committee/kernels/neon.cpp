/* The path neon: all functions for every 64-bit ARM CPU, with products of floats. */
#include "targets.h"
#ifdef COMMITTEE_NEON

#include "simd_neon.h"

#include "functions.h"

FunctionTable neon_functions() { return all_functions(); }

#endif
