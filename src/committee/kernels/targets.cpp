/* Which CPUs have which path, and which path they prefer.
 *
 * A choice rests on what the CPU says about itself, never on a measurement, so that bits depend on no clock.
 */
#include "targets.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(COMMITTEE_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(COMMITTEE_NEONBF16) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(COMMITTEE_NEONBF16) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

[[maybe_unused]] bool always() { return true; }
[[maybe_unused]] bool never() { return false; }

#if defined(__x86_64__)
[[maybe_unused]] bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

[[maybe_unused]] bool has_avx512() {
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

[[maybe_unused]] bool has_avx512bf16() {
  __builtin_cpu_init();
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* A product of two bfloat16 pairs takes one instruction's time on AMD's CPUs (Zen 4, .38 ns); on a Xeon (Emerald
 * Rapids) 16 of them take .88 ns, twice 16 products of floats .38 ns. */
[[maybe_unused]] bool multiplies_bfloat16_fast() {
#ifdef COMMITTEE_AVX512
  __builtin_cpu_init();
  return !__builtin_cpu_is("intel");
#else
  return true;
#endif
}
#endif

#ifdef COMMITTEE_AMX
/* The CPU has tiles and their bfloat16 products, and Linux lets this process use them: asked once, by the calling
 * thread, for all threads (Documentation/arch/x86/xstate.rst in Linux's sources). */
bool has_amx() {
  constexpr unsigned BFLOAT16 = 1u << 22, TILES = 1u << 24; /* of leaf 7's EDX */
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  unsigned a, b, c, d;
  if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~d & (BFLOAT16 | TILES)) return false;
  static const bool permitted = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
  return permitted;
}
#endif

#ifdef COMMITTEE_NEONBF16
bool has_neonbf16() {
#if defined(__linux__)
  return getauxval(AT_HWCAP2) & (1ul << 14); /* HWCAP2_BF16 */
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}
#endif

const Path PATHS[] = {
#ifdef COMMITTEE_AMX
    {"amx", has_amx, always, amx_functions, true},
#endif
#ifdef COMMITTEE_AVX512BF16
    {"avx512bf16", has_avx512bf16, multiplies_bfloat16_fast, avx512bf16_functions, true},
#endif
#ifdef COMMITTEE_AVX512
    {"avx512", has_avx512, always, avx512_functions, false},
#endif
#ifdef COMMITTEE_AVX2
    {"avx2", has_avx2, always, avx2_functions, false},
#endif
#ifdef COMMITTEE_NEONBF16
    {"neonbf16", has_neonbf16, always, neonbf16_functions, true},
#endif
#ifdef COMMITTEE_NEON
    {"neon", always, always, neon_functions, false},
#endif
#ifdef COMMITTEE_AMX
    {"amx-emulated", has_avx512bf16, never, amx_emulated_functions, true}, /* for tests of amx.cpp */
#endif
    {nullptr, never, never, nullptr, false}, /* an array may not be empty */
};

} // namespace

PathList all_paths() { return {PATHS, static_cast<int>(sizeof PATHS / sizeof *PATHS) - 1}; }
