/* The vector layer for 64-bit ARM: the types and functions of simd_avx512.h, which says what they are.
 *
 * The file that includes this says before by the constant BFLOAT16_INSTRUCTIONS whether numbers are multiplied as
 * bfloat16, and rounded by the instructions for it. Those round as the integers do here: to nearest, ties to even,
 * denormal numbers kept; a NaN stays one.
 */
#pragma once
#include <cstring>
#include "shapes.h"
#include "table.h"

#include <arm_neon.h>

#ifndef __clang__ /* gcc 12 would move all loads of a loop ahead, and then has too few registers for them */
#pragma GCC optimize("no-schedule-insns")
#endif

namespace {

/* Floats that stay in the 32 registers as sums (24), beside a vector (4) and a number that are multiplied */
constexpr int MOST_SUMS = 6;

/* --- floats ----------------------------------------------------------------------------------------------------- */

/* Members, not an array, which compilers keep in memory. */
struct Floats {
  float32x4_t a, b, c, d;
};
using Mask = std::uint16_t;

/* An instruction's function of all four registers */
template <auto function> INLINE Floats each(Floats x) {
  return {function(x.a), function(x.b), function(x.c), function(x.d)};
}
template <auto function> INLINE Floats each(Floats x, Floats y) {
  return {function(x.a, y.a), function(x.b, y.b), function(x.c, y.c), function(x.d, y.d)};
}
template <auto function> INLINE Floats each(Floats x, Floats y, Floats z) {
  return {function(x.a, y.a, z.a), function(x.b, y.b, z.b), function(x.c, y.c, z.c), function(x.d, y.d, z.d)};
}

INLINE Floats broadcast(float value) {
  const float32x4_t all = vdupq_n_f32(value);
  return {all, all, all, all};
}
INLINE Floats zeros() { return broadcast(0.0f); }
INLINE Floats load(const float *from) {
  return {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
}
INLINE void store(float *to, Floats values) {
  vst1q_f32(to, values.a), vst1q_f32(to + 4, values.b), vst1q_f32(to + 8, values.c), vst1q_f32(to + 12, values.d);
}

INLINE float32x4_t smaller_of(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE float32x4_t larger_of(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

INLINE Floats add(Floats a, Floats b) { return each<vaddq_f32>(a, b); }
INLINE Floats subtract(Floats a, Floats b) { return each<vsubq_f32>(a, b); }
INLINE Floats multiply(Floats a, Floats b) { return each<vmulq_f32>(a, b); }
INLINE Floats divide(Floats a, Floats b) { return each<vdivq_f32>(a, b); }
INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return each<vfmaq_f32>(c, a, b); } /* a * b + c */
INLINE Floats multiply_subtract(Floats a, Floats b, Floats c) { return multiply_add(a, b, each<vnegq_f32>(c)); }
INLINE Floats subtract_product(Floats c, Floats a, Floats b) { return each<vfmsq_f32>(c, a, b); } /* c - a * b */
INLINE Floats square_root(Floats a) { return each<vsqrtq_f32>(a); }
INLINE Floats round_down(Floats a) { return each<vrndmq_f32>(a); }
/* b if one is a NaN; vminq and vmaxq would give the NaN */
INLINE Floats smaller_of(Floats a, Floats b) {
  return {smaller_of(a.a, b.a), smaller_of(a.b, b.b), smaller_of(a.c, b.c), smaller_of(a.d, b.d)};
}
INLINE Floats larger_of(Floats a, Floats b) {
  return {larger_of(a.a, b.a), larger_of(a.b, b.b), larger_of(a.c, b.c), larger_of(a.d, b.d)};
}

/* --- masks -------------------------------------------------------------------------------------------------------- */

/* A bit for each of 16 bytes, which are 0 or 255 */
INLINE Mask bits_of(uint8x16_t bytes) {
  static constexpr std::uint8_t BITS[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bits = vandq_u8(bytes, vld1q_u8(BITS));
  return static_cast<Mask>(vaddv_u8(vget_low_u8(bits)) | vaddv_u8(vget_high_u8(bits)) << 8);
}
/* The low halves of two registers' numbers */
INLINE uint16x8_t halves(uint32x4_t a, uint32x4_t b) {
  return vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
}
INLINE uint8x16_t halves(uint16x8_t a, uint16x8_t b) {
  return vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(b));
}
INLINE Mask bits_of(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  return bits_of(halves(halves(a, b), halves(c, d)));
}
/* All ones where the mask has a bit, for 16 bits of 8 lanes */
INLINE uint16x8_t lanes_of(Mask low_byte) {
  static constexpr std::uint16_t BITS[8] = {1, 2, 4, 8, 16, 32, 64, 128};
  return vtstq_u16(vdupq_n_u16(low_byte), vld1q_u16(BITS));
}

INLINE Mask greater(Floats a, Floats b) {
  return bits_of(vcgtq_f32(a.a, b.a), vcgtq_f32(a.b, b.b), vcgtq_f32(a.c, b.c), vcgtq_f32(a.d, b.d));
}
INLINE Mask equal(Mask of, Floats a, Floats b) {
  return of & bits_of(vceqq_f32(a.a, b.a), vceqq_f32(a.b, b.b), vceqq_f32(a.c, b.c), vceqq_f32(a.d, b.d));
}
INLINE Floats zero_unless(Mask kept, Floats values) {
  const uint16x8_t low = lanes_of(kept), high = lanes_of(kept >> 8);
  const auto kept_of = [](uint16x8_t lanes, float32x4_t of) INLINE_LAMBDA {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(lanes), vreinterpretq_u32_f32(of)));
  };
  return {kept_of(vzip1q_u16(low, low), values.a), kept_of(vzip2q_u16(low, low), values.b),
          kept_of(vzip1q_u16(high, high), values.c), kept_of(vzip2q_u16(high, high), values.d)};
}
INLINE Mask first_lanes(Index count) { return count >= 16 ? 0xffff : static_cast<Mask>((1u << count) - 1); }
INLINE Floats load(Mask lanes, const float *from) {
  if (lanes == 0xffff) return load(from);
  float values[16] = {};
  for (int i = 0; i < 16; i++)
    if (lanes >> i & 1) values[i] = from[i];
  return load(values);
}
INLINE void store(Mask lanes, float *to, Floats values) {
  if (lanes == 0xffff) return store(to, values);
  float all[16];
  store(all, values);
  for (int i = 0; i < 16; i++)
    if (lanes >> i & 1) to[i] = all[i];
}

/* Adds 16 floats to 16 doubles in memory. */
INLINE void add_to_doubles(double *to, Floats values) {
  const auto add = [](double *to, float32x4_t four) INLINE_LAMBDA {
    vst1q_f64(to, vaddq_f64(vld1q_f64(to), vcvt_f64_f32(vget_low_f32(four))));
    vst1q_f64(to + 2, vaddq_f64(vld1q_f64(to + 2), vcvt_high_f64_f32(four)));
  };
  add(to, values.a), add(to + 4, values.b), add(to + 8, values.c), add(to + 12, values.d);
}

/* --- bfloat16 in memory ------------------------------------------------------------------------------------------- */

/* 16 numbers of 16 bits */
struct Bits {
  uint16x8_t a, b;
};

INLINE Bits load_bits(const bfloat16 *from) { return {vld1q_u16(&from->bits), vld1q_u16(&from->bits + 8)}; }
INLINE void store_bits(bfloat16 *to, Bits values) {
  vst1q_u16(&to->bits, values.a), vst1q_u16(&to->bits + 8, values.b);
}
INLINE Floats widened(Bits bits) {
  const uint16x8_t zero = vdupq_n_u16(0);
  return {vreinterpretq_f32_u16(vzip1q_u16(zero, bits.a)), vreinterpretq_f32_u16(vzip2q_u16(zero, bits.a)),
          vreinterpretq_f32_u16(vzip1q_u16(zero, bits.b)), vreinterpretq_f32_u16(vzip2q_u16(zero, bits.b))};
}

INLINE uint16x8_t narrowed(float32x4_t low, float32x4_t high) {
  if constexpr (BFLOAT16_INSTRUCTIONS) {
    return vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high));
  } else {
    const auto rounded =
        [](float32x4_t values)
            INLINE_LAMBDA { /* the high half of each is the number */
                            const uint32x4_t bits = vreinterpretq_u32_f32(values);
                            const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
                            const uint32x4_t nearest = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
                            const uint32x4_t quiet_nan = vorrq_u32(bits, vdupq_n_u32(0x400000));
                            return vreinterpretq_u16_u32(vbslq_u32(vceqq_f32(values, values), nearest, quiet_nan));
            };
    return vuzp2q_u16(rounded(low), rounded(high));
  }
}
INLINE Bits narrowed(Floats values) { return {narrowed(values.a, values.b), narrowed(values.c, values.d)}; }

INLINE Floats load(const bfloat16 *from) { return widened(load_bits(from)); }
INLINE void store(bfloat16 *to, Floats values) { store_bits(to, narrowed(values)); }

/* The values where those at `sign` are above 0, elsewhere 0. */
INLINE Floats load_where_positive(const bfloat16 *from, const bfloat16 *sign) {
  const Bits values = load_bits(from), signs = load_bits(sign);
  return widened({vandq_u16(values.a, vcgtzq_s16(vreinterpretq_s16_u16(signs.a))),
                  vandq_u16(values.b, vcgtzq_s16(vreinterpretq_s16_u16(signs.b)))});
}

INLINE Bits zero_unless(Mask kept, Bits values) {
  return {vandq_u16(values.a, lanes_of(kept)), vandq_u16(values.b, lanes_of(kept >> 8))};
}

/* Copies 16 values, 0 where the mask has no bit. */
INLINE void copy_or_zero(Mask kept, const bfloat16 *from, bfloat16 *to) {
  store_bits(to, zero_unless(kept, load_bits(from)));
}

/* Of at most 32 values, those with a bit in `kept` times factor; the others become 0. */
INLINE void scale_or_zero_32(std::uint32_t kept, Index count, const bfloat16 *from, Floats factor, bfloat16 *to) {
  const auto scale = [&](const bfloat16 *from, bfloat16 *to) INLINE_LAMBDA {
    for (int i = 0; i < 32; i += 16)
      store(to + i, multiply(widened(zero_unless(static_cast<Mask>(kept >> i), load_bits(from + i))), factor));
  };
  if (count >= 32) return scale(from, to);
  bfloat16 part[32] = {};
  std::memcpy(part, from, sizeof(bfloat16) * count);
  scale(part, part);
  std::memcpy(to, part, sizeof(bfloat16) * count);
}

/* --- products of a convolution ------------------------------------------------------------------------------------ */

INLINE Floats pinned(Floats values) { return values; } /* compilers keep it in registers by themselves, see above */

} // namespace
#include "products.h"
namespace {

using Product = std::conditional_t<BFLOAT16_INSTRUCTIONS, bfloat16, float>; /* what this path multiplies */

/* By dot products of pairs. BFMMLA has twice their rate and gives 2 * 2 sums of 4 products each: with it, numbers would
 * lie in fours of neighbouring channels, and the sums of two pixels in a register. */
template <> struct Products<bfloat16> {
  static constexpr int depth = 2;
  struct Vector {
    bfloat16x8_t a, b, c, d;
  };
  INLINE static Vector load(const bfloat16 *from) {
    const Bits low = load_bits(from), high = load_bits(from + 16);
    return {vreinterpretq_bf16_u16(low.a), vreinterpretq_bf16_u16(low.b), vreinterpretq_bf16_u16(high.a),
            vreinterpretq_bf16_u16(high.b)};
  }
  INLINE static Floats dot(Floats sum, Vector vector, const bfloat16 *pair) {
    using Pair [[gnu::may_alias]] = std::uint32_t;
    const uint32x2_t two = vset_lane_u32(*reinterpret_cast<const Pair *>(pair), vdup_n_u32(0), 0);
    const bfloat16x4_t numbers = vreinterpret_bf16_u32(two);
    return {vbfdotq_lane_f32(sum.a, vector.a, numbers, 0), vbfdotq_lane_f32(sum.b, vector.b, numbers, 0),
            vbfdotq_lane_f32(sum.c, vector.c, numbers, 0), vbfdotq_lane_f32(sum.d, vector.d, numbers, 0)};
  }
  INLINE static void store(bfloat16 *to, Floats values) { ::store(to, values); }
  INLINE static void store_two(bfloat16 *to, Index, Floats first, Floats second) {
    const Bits a = narrowed(first), b = narrowed(second);
    store_bits(to, {vzip1q_u16(a.a, b.a), vzip2q_u16(a.a, b.a)});
    store_bits(to + 16, {vzip1q_u16(a.b, b.b), vzip2q_u16(a.b, b.b)});
  }
  INLINE static void scatter_two(bfloat16 *to, Index row, Floats first, Floats second) {
    bfloat16 a[16], b[16];
    ::store(a, first), ::store(b, second);
    for (int i = 0; i < 16; i += 2, to += row) std::memcpy(to, a + i, 4), std::memcpy(to + 2, b + i, 4);
  }
};

/* --- integers: places of pixels, random numbers ------------------------------------------------------------------- */

struct Ints {
  int32x4_t a, b, c, d;
};

template <auto function> INLINE Ints each(Ints x, Ints y) {
  return {function(x.a, y.a), function(x.b, y.b), function(x.c, y.c), function(x.d, y.d)};
}

INLINE Ints broadcast(std::int32_t value) {
  const int32x4_t all = vdupq_n_s32(value);
  return {all, all, all, all};
}
INLINE Ints add(Ints a, Ints b) { return each<vaddq_s32>(a, b); }
INLINE Ints multiply(Ints a, Ints b) { return each<vmulq_s32>(a, b); }
INLINE Ints whole(Floats values) { /* of whole numbers */
  return {vcvtnq_s32_f32(values.a), vcvtnq_s32_f32(values.b), vcvtnq_s32_f32(values.c), vcvtnq_s32_f32(values.d)};
}
/* 0 <= a < end */
INLINE Mask within(Ints a, Ints end) {
  const auto inside = [](int32x4_t a, int32x4_t end)
                          INLINE_LAMBDA { return vandq_u32(vcgezq_s32(a), vcltq_s32(a, end)); };
  return bits_of(inside(a.a, end.a), inside(a.b, end.b), inside(a.c, end.c), inside(a.d, end.d));
}
INLINE Floats lane_numbers() {
  static constexpr float NUMBERS[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(NUMBERS);
}
/* from[at], 0 where the mask has no bit */
INLINE Floats gather(Mask lanes, const float *from, Ints at) {
  std::int32_t places[16];
  float values[16];
  vst1q_s32(places, at.a), vst1q_s32(places + 4, at.b), vst1q_s32(places + 8, at.c), vst1q_s32(places + 12, at.d);
  for (int i = 0; i < 16; i++) values[i] = lanes >> i & 1 ? from[places[i]] : 0.0f;
  return load(values);
}

/* Eight streams of xoroshiro128++ (Blackman & Vigna 2019) side by side, the same as with AVX-512. */
struct RandomStreams {
  uint64x2_t s0[4], s1[4];

  INLINE explicit RandomStreams(const std::uint64_t (&seeds)[16]) {
    for (int i = 0; i < 4; i++) s0[i] = vld1q_u64(seeds + 2 * i), s1[i] = vld1q_u64(seeds + 8 + 2 * i);
  }

  template <int Count> INLINE static uint64x2_t rotated(uint64x2_t a) {
    return vorrq_u64(vshlq_n_u64(a, Count), vshrq_n_u64(a, 64 - Count));
  }

  /* 32 draws of 16 bits: a bit for each that is `limit` or more */
  INLINE std::uint32_t at_least(int limit) {
    const uint16x8_t least = vdupq_n_u16(static_cast<std::uint16_t>(limit));
    uint16x8_t kept[4];
    unrolled<4>([&](auto i) INLINE_LAMBDA {
      const uint64x2_t drawn = vaddq_u64(rotated<17>(vaddq_u64(s0[i], s1[i])), s0[i]);
      s1[i] = veorq_u64(s1[i], s0[i]);
      s0[i] = veorq_u64(veorq_u64(rotated<49>(s0[i]), s1[i]), vshlq_n_u64(s1[i], 21));
      s1[i] = rotated<28>(s1[i]);
      kept[i] = vcgeq_u16(vreinterpretq_u16_u64(drawn), least);
    });
    return bits_of(halves(kept[0], kept[1])) | std::uint32_t{bits_of(halves(kept[2], kept[3]))} << 16;
  }
};

} // namespace
