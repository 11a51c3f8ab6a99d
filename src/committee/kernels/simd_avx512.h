/* The vector layer for CPUs with AVX-512: all that depends on the instruction set.
 *
 * A `Floats` is 16 floats, a `Mask` has a bit for each of them. Rounding to bfloat16 is to nearest, ties to even. The
 * file that includes this says before by the constant BFLOAT16_INSTRUCTIONS whether its CPUs have those: without them
 * integers round, and products are of floats.
 */
#pragma once
#include <cstring>
#include "shapes.h"
#include "table.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* gcc's own header, bug 105593 */
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace {

/* Floats that stay in the 32 registers as sums, beside a vector and a number that are multiplied, and one to spare */
constexpr int MOST_SUMS = 29;

/* --- floats ----------------------------------------------------------------------------------------------------- */

using Floats = __m512;
using Ints = __m512i;
using Mask = __mmask16;

INLINE Floats zeros() { return _mm512_setzero_ps(); }
INLINE Floats broadcast(float value) { return _mm512_set1_ps(value); }
INLINE Ints broadcast(std::int32_t value) { return _mm512_set1_epi32(value); }
INLINE Floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, Floats values) { _mm512_storeu_ps(to, values); }

INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }      /* a * b + c */
INLINE Floats multiply_subtract(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); } /* a * b - c */
INLINE Floats subtract_product(Floats c, Floats a, Floats b) { return _mm512_fnmadd_ps(a, b, c); } /* c - a * b */
INLINE Floats square_root(Floats a) { return _mm512_sqrt_ps(a); }
INLINE Floats round_down(Floats a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE Floats smaller_of(Floats a, Floats b) { return _mm512_min_ps(a, b); } /* b if one is a NaN, also next */
INLINE Floats larger_of(Floats a, Floats b) { return _mm512_max_ps(a, b); }

INLINE Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
INLINE Mask equal(Mask of, Floats a, Floats b) { return _mm512_mask_cmp_ps_mask(of, a, b, _CMP_EQ_OQ); }
INLINE Floats zero_unless(Mask kept, Floats values) { return _mm512_maskz_mov_ps(kept, values); }
INLINE Mask first_lanes(Index count) { return count >= 16 ? 0xffff : static_cast<Mask>((1u << count) - 1); }
INLINE Floats load(Mask lanes, const float *from) { return _mm512_maskz_loadu_ps(lanes, from); }
INLINE void store(Mask lanes, float *to, Floats values) { _mm512_mask_storeu_ps(to, lanes, values); }

/* Adds 16 floats to 16 doubles in memory. */
INLINE void add_to_doubles(double *to, Floats values) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(values));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1));
  _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), low));
  _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), high));
}

/* --- bfloat16 in memory ------------------------------------------------------------------------------------------- */

INLINE __m256i load_bits(const bfloat16 *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }
INLINE Floats widened(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
INLINE __m256i narrowed(Floats values) {
  if constexpr (BFLOAT16_INSTRUCTIONS) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values));
  } else {
    const __m512i bits = _mm512_castps_si512(values), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), broadcast(1));
    const __m512i nearest = _mm512_add_epi32(_mm512_add_epi32(bits, broadcast(0x7fff)), odd);
    const Mask nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q); /* becomes a NaN with all bits */
    return _mm512_cvtepi32_epi16(_mm512_mask_set1_epi32(_mm512_srli_epi32(nearest, 16), nan, -1));
  }
}
INLINE __m512i narrowed(Floats first, Floats second) {
  if constexpr (BFLOAT16_INSTRUCTIONS)
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
  else
    return _mm512_inserti64x4(_mm512_castsi256_si512(narrowed(first)), narrowed(second), 1);
}

/* 16 values, then 16 others -> the first of both, the second of both ... */
INLINE __m512i alternating(__m512i values) {
  static constexpr std::uint16_t ORDER[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                              8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER), values);
}

INLINE Floats load(const bfloat16 *from) { return widened(load_bits(from)); }
INLINE void store(bfloat16 *to, Floats values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), narrowed(values));
}

/* The values where those at `sign` are above 0, elsewhere 0. */
INLINE Floats load_where_positive(const bfloat16 *from, const bfloat16 *sign) {
  __m256i values = load_bits(from);
  __asm__("" : "+v"(values)); /* else gcc makes it a masked load, which waits for its mask */
  return widened(_mm256_maskz_mov_epi16(_mm256_cmpgt_epi16_mask(load_bits(sign), _mm256_setzero_si256()), values));
}

/* Copies 16 values, 0 where the mask has no bit. */
INLINE void copy_or_zero(Mask kept, const bfloat16 *from, bfloat16 *to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_maskz_mov_epi16(kept, load_bits(from)));
}

/* Of at most 32 values, those with a bit in `kept` times factor; the others become 0. */
INLINE void scale_or_zero_32(std::uint32_t kept, Index count, const bfloat16 *from, Floats factor, bfloat16 *to) {
  const __mmask32 present = count >= 32 ? 0xffffffffu : (1u << count) - 1;
  const __m512i values = _mm512_maskz_loadu_epi16(present & kept, from);
  const Floats low = multiply(widened(_mm512_castsi512_si256(values)), factor);
  const Floats high = multiply(widened(_mm512_extracti64x4_epi64(values, 1)), factor);
  _mm512_mask_storeu_epi16(to, present, narrowed(low, high));
}

/* --- products of a convolution ------------------------------------------------------------------------------------ */

/* The same, in a register: else gcc 12 fetches a vector again for some of the products that it enters. */
INLINE Floats pinned(Floats values) {
  __asm__("" : "+v"(values));
  return values;
}

} // namespace
#include "products.h"
namespace {

using Product = std::conditional_t<BFLOAT16_INSTRUCTIONS, bfloat16, float>; /* what this path multiplies */

/* Two instructions' work in one on AMD's CPUs since Zen 4. */
template <> struct Products<bfloat16> {
  static constexpr int depth = 2;
  using Vector = __m512i;
  INLINE static Vector load(const bfloat16 *from) { return _mm512_loadu_si512(from); }
  INLINE static Floats dot(Floats sum, Vector vector, const bfloat16 *pair) {
    using Pair [[gnu::may_alias]] = std::int32_t;
    const __m512i everywhere = _mm512_set1_epi32(*reinterpret_cast<const Pair *>(pair));
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(vector), reinterpret_cast<__m512bh>(everywhere));
  }
  INLINE static void store(bfloat16 *to, Floats values) { ::store(to, values); }
  INLINE static void store_two(bfloat16 *to, Index, Floats first, Floats second) {
    _mm512_storeu_si512(to, alternating(narrowed(first, second)));
  }
  INLINE static void scatter_two(bfloat16 *to, Index row, Floats first, Floats second) {
    std::uint32_t pairs[16];
    _mm512_storeu_si512(pairs, narrowed(first, second));
    for (int i = 0; i < 8; i++, to += row) std::memcpy(to, pairs + i, 4), std::memcpy(to + 2, pairs + 8 + i, 4);
  }
};

/* --- integers: places of pixels, random numbers ------------------------------------------------------------------- */

INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Ints multiply(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
INLINE Ints whole(Floats values) { return _mm512_cvtps_epi32(values); } /* of whole numbers */
/* 0 <= a < end */
INLINE Mask within(Ints a, Ints end) {
  return _mm512_cmpge_epi32_mask(a, _mm512_setzero_si512()) & _mm512_cmplt_epi32_mask(a, end);
}
INLINE Floats lane_numbers() { return _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }
/* from[at], 0 where the mask has no bit */
INLINE Floats gather(Mask lanes, const float *from, Ints at) {
  return _mm512_mask_i32gather_ps(zeros(), lanes, at, from, sizeof(float));
}

/* Eight streams of xoroshiro128++ (Blackman & Vigna 2019) side by side. */
struct RandomStreams {
  __m512i s0, s1;

  INLINE explicit RandomStreams(const std::uint64_t (&seeds)[16])
      : s0(_mm512_loadu_si512(seeds)), s1(_mm512_loadu_si512(seeds + 8)) {}

  /* 32 draws of 16 bits: a bit for each that is `limit` or more */
  INLINE std::uint32_t at_least(int limit) {
    const __m512i drawn = _mm512_add_epi64(_mm512_rol_epi64(_mm512_add_epi64(s0, s1), 17), s0);
    s1 = _mm512_xor_si512(s1, s0);
    s0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_rol_epi64(s0, 49), s1), _mm512_slli_epi64(s1, 21));
    s1 = _mm512_rol_epi64(s1, 28);
    return _mm512_cmpge_epu16_mask(drawn, _mm512_set1_epi16(static_cast<short>(limit)));
  }
};

} // namespace
