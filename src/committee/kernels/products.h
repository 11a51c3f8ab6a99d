/* What a vector layer multiplies: the interface, and products of floats, which are the same on all.
 *
 * A vector layer includes this after its floats, and adds Products<bfloat16> if it has such instructions.
 */
#pragma once
#include "shapes.h"

namespace {

/* depth             numbers that one dot product takes from either side: neighbouring channels, or two images
 * Vector, load      16 * depth numbers
 * dot               sum + vector . depth numbers in memory, the same for all 16
 * store             16 numbers
 * store_two         two times 16 numbers, where the depth is 2 as neighbours (first, second, first ...), else `apart`
 * scatter_two       two times 16 numbers as columns: number i of both goes to row i / depth, where those of a row lie
 *                   as the dot product wants them
 */
template <class Number> struct Products;

template <> struct Products<float> {
  static constexpr int depth = 1;
  using Vector = Floats;
  INLINE static Vector load(const float *from) { return pinned(::load(from)); }
  INLINE static Floats dot(Floats sum, Vector vector, const float *number) {
    return multiply_add(vector, broadcast(*number), sum);
  }
  INLINE static void store(float *to, Floats values) { ::store(to, values); }
  INLINE static void store_two(float *to, Index apart, Floats first, Floats second) {
    ::store(to, first), ::store(to + apart, second);
  }
  INLINE static void scatter_two(float *to, Index row, Floats first, Floats second) {
    float a[16], b[16];
    ::store(a, first), ::store(b, second);
    for (int i = 0; i < 16; i++, to += row) to[0] = a[i], to[1] = b[i];
  }
};

} // namespace
