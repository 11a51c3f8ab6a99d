/* The vector layer for CPUs with AVX2 and FMA: what simd_avx512.h has, in registers of half the size.
 *
 * A `Floats` is 16 floats in two registers, a `Mask` has a bit for each of them. Rounding to bfloat16 is to nearest,
 * ties to even.
 */
#pragma once
#include <cstring>
#include <immintrin.h>
#include "shapes.h"
#include "table.h"

namespace {

/* Floats that stay in the 16 registers as sums, beside a vector and a number that are multiplied, and one to spare */
constexpr int MOST_SUMS = 6;

struct Floats {
  __m256 low, high;
};
struct Ints {
  __m256i low, high;
};
using Mask = std::uint16_t;

/* --- masks as vectors: all bits of an element, or none ------------------------------------------------------------ */

INLINE Mask mask_of(__m256 low, __m256 high) {
  return static_cast<Mask>(_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8);
}
INLINE Ints elements_of(Mask mask) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), all = _mm256_set1_epi32(mask);
  const __m256i high_bit = _mm256_slli_epi32(bit, 8);
  return {_mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit),
          _mm256_cmpeq_epi32(_mm256_and_si256(all, high_bit), high_bit)};
}
INLINE __m256i halfwords_of(Mask mask) {
  const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
  return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(static_cast<short>(mask)), bit), bit);
}

/* --- floats ------------------------------------------------------------------------------------------------------- */

INLINE Floats broadcast(float value) {
  const __m256 half = _mm256_set1_ps(value);
  return {half, half};
}
INLINE Floats zeros() { return broadcast(0.0f); }
INLINE Floats load(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
INLINE void store(float *to, Floats values) { _mm256_storeu_ps(to, values.low), _mm256_storeu_ps(to + 8, values.high); }

INLINE Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
INLINE Floats subtract(Floats a, Floats b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
INLINE Floats multiply(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
INLINE Floats divide(Floats a, Floats b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { /* a * b + c */
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
INLINE Floats multiply_subtract(Floats a, Floats b, Floats c) { /* a * b - c */
  return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
INLINE Floats subtract_product(Floats c, Floats a, Floats b) { /* c - a * b */
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
INLINE Floats square_root(Floats a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
INLINE Floats round_down(Floats a) { return {_mm256_floor_ps(a.low), _mm256_floor_ps(a.high)}; }
INLINE Floats smaller_of(Floats a, Floats b) { /* b if one is a NaN, also next */
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
INLINE Floats larger_of(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }

INLINE Mask greater(Floats a, Floats b) {
  return mask_of(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ));
}
INLINE Mask equal(Mask of, Floats a, Floats b) {
  return of & mask_of(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ));
}
INLINE Floats zero_unless(Mask kept, Floats values) {
  const Ints elements = elements_of(kept);
  return {_mm256_and_ps(values.low, _mm256_castsi256_ps(elements.low)),
          _mm256_and_ps(values.high, _mm256_castsi256_ps(elements.high))};
}
INLINE Mask first_lanes(Index count) { return count >= 16 ? 0xffff : static_cast<Mask>((1u << count) - 1); }
/* All lanes at once where the mask has them all: storing under a mask is slow on many of these CPUs. */
INLINE Floats load(Mask lanes, const float *from) {
  if (lanes == 0xffff) return load(from);
  const Ints elements = elements_of(lanes);
  return {_mm256_maskload_ps(from, elements.low), _mm256_maskload_ps(from + 8, elements.high)};
}
INLINE void store(Mask lanes, float *to, Floats values) {
  if (lanes == 0xffff) return store(to, values);
  const Ints elements = elements_of(lanes);
  _mm256_maskstore_ps(to, elements.low, values.low), _mm256_maskstore_ps(to + 8, elements.high, values.high);
}

INLINE void add_to_doubles(double *to, __m128 values) {
  _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), _mm256_cvtps_pd(values)));
}
/* Adds 16 floats to 16 doubles in memory. */
INLINE void add_to_doubles(double *to, Floats values) {
  add_to_doubles(to, _mm256_castps256_ps128(values.low)), add_to_doubles(to + 4, _mm256_extractf128_ps(values.low, 1));
  add_to_doubles(to + 8, _mm256_castps256_ps128(values.high));
  add_to_doubles(to + 12, _mm256_extractf128_ps(values.high, 1));
}

/* --- bfloat16 in memory ------------------------------------------------------------------------------------------- */

INLINE __m256i load_bits(const bfloat16 *from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)); }
INLINE void store_bits(bfloat16 *to, __m256i bits) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), bits); }

INLINE __m256 widened(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
INLINE Floats widened(__m256i bits) {
  return {widened(_mm256_castsi256_si128(bits)), widened(_mm256_extracti128_si256(bits, 1))};
}
/* The bits of the nearest bfloat16, in the lower half of each element; a NaN becomes one with all bits. */
INLINE __m256i rounded(__m256 values) {
  const __m256i bits = _mm256_castps_si256(values);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i nearest = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_or_si256(nearest, nan), 16);
}
INLINE __m256i narrowed(Floats values) { /* packing takes the lower halves of both registers first */
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded(values.low), rounded(values.high)), 0xd8);
}

INLINE Floats load(const bfloat16 *from) {
  const __m128i *const halves = reinterpret_cast<const __m128i *>(from);
  return {widened(_mm_loadu_si128(halves)), widened(_mm_loadu_si128(halves + 1))};
}
INLINE void store(bfloat16 *to, Floats values) { store_bits(to, narrowed(values)); }

/* The values where those at `sign` are above 0, elsewhere 0. */
INLINE Floats load_where_positive(const bfloat16 *from, const bfloat16 *sign) {
  return widened(_mm256_and_si256(load_bits(from), _mm256_cmpgt_epi16(load_bits(sign), _mm256_setzero_si256())));
}

/* Copies 16 values, 0 where the mask has no bit. */
INLINE void copy_or_zero(Mask kept, const bfloat16 *from, bfloat16 *to) {
  store_bits(to, _mm256_and_si256(load_bits(from), halfwords_of(kept)));
}

/* Of at most 32 values, those with a bit in `kept` times factor; the others become 0. */
INLINE void scale_or_zero_32(std::uint32_t kept, Index count, const bfloat16 *from, Floats factor, bfloat16 *to) {
  const auto scale_16 = [&](Mask mask, const bfloat16 *values, bfloat16 *out) INLINE_LAMBDA {
    store(out, multiply(widened(_mm256_and_si256(load_bits(values), halfwords_of(mask))), factor));
  };
  bfloat16 values[32] = {};
  const bool all = count >= 32;
  if (!all) std::memcpy(values, from, sizeof(bfloat16) * count);
  const bfloat16 *const source = all ? from : values;
  bfloat16 *const target = all ? to : values;
  scale_16(static_cast<Mask>(kept), source, target), scale_16(static_cast<Mask>(kept >> 16), source + 16, target + 16);
  if (!all) std::memcpy(to, values, sizeof(bfloat16) * count);
}

/* --- products of a convolution ------------------------------------------------------------------------------------ */

/* The same, in a register: else gcc 12 fetches a vector again for some of the products that it enters. */
INLINE Floats pinned(Floats values) {
  __asm__("" : "+x"(values.low), "+x"(values.high));
  return values;
}

} // namespace
#include "products.h"
namespace {

using Product = float; /* what this path multiplies */

/* --- integers: places of pixels, random numbers ------------------------------------------------------------------- */

INLINE Ints broadcast(std::int32_t value) {
  const __m256i half = _mm256_set1_epi32(value);
  return {half, half};
}
INLINE Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
INLINE Ints multiply(Ints a, Ints b) { return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)}; }
INLINE Ints whole(Floats values) { return {_mm256_cvtps_epi32(values.low), _mm256_cvtps_epi32(values.high)}; }
INLINE __m256 within(__m256i a, __m256i end) {
  return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_srai_epi32(a, 31), _mm256_cmpgt_epi32(end, a)));
}
/* 0 <= a < end */
INLINE Mask within(Ints a, Ints end) { return mask_of(within(a.low, end.low), within(a.high, end.high)); }
INLINE Floats lane_numbers() {
  return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
}
/* from[at], 0 where the mask has no bit */
INLINE Floats gather(Mask lanes, const float *from, Ints at) {
  const Ints elements = elements_of(lanes);
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_mask_i32gather_ps(zero, from, at.low, _mm256_castsi256_ps(elements.low), sizeof(float)),
          _mm256_mask_i32gather_ps(zero, from, at.high, _mm256_castsi256_ps(elements.high), sizeof(float))};
}

/* Four streams of xoroshiro128++ (Blackman & Vigna 2019) side by side. */
struct FourStreams {
  __m256i s0, s1;

  template <int Bits> INLINE static __m256i turned(__m256i a) {
    return _mm256_or_si256(_mm256_slli_epi64(a, Bits), _mm256_srli_epi64(a, 64 - Bits));
  }
  INLINE __m256i next() {
    const __m256i drawn = _mm256_add_epi64(turned<17>(_mm256_add_epi64(s0, s1)), s0);
    s1 = _mm256_xor_si256(s1, s0);
    s0 = _mm256_xor_si256(_mm256_xor_si256(turned<49>(s0), s1), _mm256_slli_epi64(s1, 21));
    s1 = turned<28>(s1);
    return drawn;
  }
};

/* The eight streams of simd_avx512.h: the same draws. */
struct RandomStreams {
  FourStreams low, high;

  INLINE explicit RandomStreams(const std::uint64_t (&seeds)[16])
      : low{four(seeds), four(seeds + 8)}, high{four(seeds + 4), four(seeds + 12)} {}
  INLINE static __m256i four(const std::uint64_t *seeds) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(seeds));
  }

  /* 32 draws of 16 bits: a bit for each that is `limit` or more */
  INLINE std::uint32_t at_least(int limit) {
    const __m256i limits = _mm256_set1_epi16(static_cast<short>(limit));
    const auto reached = [&](__m256i drawn) INLINE_LAMBDA {
      return _mm256_cmpeq_epi16(_mm256_max_epu16(drawn, limits), drawn);
    };
    const __m256i bytes = _mm256_packs_epi16(reached(low.next()), reached(high.next()));
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_permute4x64_epi64(bytes, 0xd8)));
  }
};

} // namespace
