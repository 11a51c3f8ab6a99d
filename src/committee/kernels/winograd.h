/* F(m, r): m neighbouring outputs of a filter with r taps by n = m + r - 1 products instead of m * r.
 *
 * After Toom and Cook, and S. Winograd, "Arithmetic Complexity of Computations" (1980): a row of a convolution is a
 * product of polynomials, known by its values at n points. As A. Lavin and S. Gray write it for the tiles of a layer
 * ("Fast Algorithms for Convolutional Neural Networks", 2016, arXiv 1509.09308), with filter g and input d of a row,
 *
 *   outputs = A^T (sum over the filter's rows and channels of (G g) * (B^T d)), a product point by point.
 *
 * Here it is done along rows alone. A full tile has 6 points, so it is F(4, 3) or F(2, 5); the last tile of a row has
 * as many as its outputs need, F(1, 3) to F(3, 3) or F(1, 5). The points are 0, infinity, 3/4, -3/4, 3/2, -3/2, or the
 * first of them: with these the transformed values, which may be rounded to bfloat16, are of like size.
 *
 * G evaluates a polynomial at the points and scales the values by NORMAL; B^T holds the coefficients of Lagrange's
 * polynomials without that scale; A^T sums powers. The gradient of the taps is a convolution too, of the input with
 * the outputs' gradient as filter: the same transforms with outputs and taps in each other's place.
 */
#pragma once
#include "shapes.h"

namespace {

constexpr float P = 0.75f, Q = 1.5f; /* the points */
constexpr float P2 = P * P, Q2 = Q * Q;
constexpr float NORMAL[TRANSFORM_POINTS] = {
    1 / (P2 * Q2),           1, 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2)),
    1 / (2 * Q2 * (Q2 - P2))};

constexpr int outputs_of_tile(int points, int kernel) { return points + 1 - kernel; }

/* A row of outputs as tiles: so many full ones, then one of `last` points, or none where that is 0. */
struct RowTiles {
  int full, last;

  RowTiles(int outputs, int kernel) {
    const int whole = outputs_of_tile(TRANSFORM_POINTS, kernel), left = outputs % whole;
    full = outputs / whole, last = left ? left + kernel - 1 : 0;
  }
  int points() const { return TRANSFORM_POINTS * full + last; }
  int with_point(int point) const { return full + (last > point); } /* tiles that have this point */
};

/* Calls function with the points of a last tile as a compile-time constant, if there is one. */
template <int Kernel, class Function> INLINE void with_last_tile(int last, Function &&function) {
  if constexpr (Kernel < 4) with_constant(List<3, 4, 5>{}, last, function);
  if constexpr (Kernel >= 4) with_constant(List<5>{}, last, function);
}

INLINE Floats scaled(float factor, Floats a) { return multiply(broadcast(factor), a); }
INLINE Floats plus(Floats a, float factor, Floats b) { return multiply_add(broadcast(factor), b, a); }
INLINE Floats minus(Floats a, float factor, Floats b) { return subtract_product(a, broadcast(factor), b); }

/* B^T d: pixels d[0] ... d[Points - 1] to the tile's values at the points. */
template <int Points> INLINE void transform_input(const Floats *d, Floats *out) {
  static_assert(Points >= 3 && Points <= TRANSFORM_POINTS);
  if constexpr (Points == 3) {
    out[0] = scaled(P2 * Q2, minus(d[0], 1 / P, d[1])), out[1] = minus(d[2], P, d[1]);
    out[2] = scaled(2 * P * (P2 - Q2), d[1]);
  } else if constexpr (Points == 4) {
    const Floats odd = scaled(P * (P2 - Q2), d[1]);
    out[0] = scaled(Q2, minus(scaled(P2, d[0]), 1, d[2])), out[1] = minus(d[3], P2, d[1]);
    out[2] = plus(odd, P2 - Q2, d[2]), out[3] = minus(scaled(P2 - Q2, d[2]), 1, odd);
  } else if constexpr (Points == 5) {
    const Floats even = minus(d[2], P2, d[0]), odd = minus(d[3], P2, d[1]);
    out[0] = minus(scaled(Q, odd), Q2, even), out[1] = minus(minus(d[4], P2, d[2]), Q, odd);
    out[2] = scaled(P + Q, plus(minus(d[3], P * Q, d[1]), P - Q, d[2]));
    out[3] = scaled(Q - P, minus(plus(d[3], P * Q, d[1]), P + Q, d[2]));
    out[4] = scaled(2 * Q, odd);
  } else {
    const Floats even_p = minus(d[4], Q2, d[2]), odd_p = minus(d[3], Q2, d[1]);
    const Floats even_q = minus(d[4], P2, d[2]), odd_q = minus(d[3], P2, d[1]);
    out[0] = plus(minus(d[4], P2 + Q2, d[2]), P2 * Q2, d[0]);
    out[1] = plus(minus(d[5], P2 + Q2, d[3]), P2 * Q2, d[1]);
    out[2] = plus(even_p, P, odd_p), out[3] = minus(even_p, P, odd_p);
    out[4] = plus(even_q, Q, odd_q), out[5] = minus(even_q, Q, odd_q);
  }
}

/* G g without its scale: the values at the points of the polynomial with these coefficients. With Fused, up to three of
 * them, the odd coefficient's product is not rounded; that of a bfloat16 is exact, so it matters for filters alone. */
template <int Coefficients, int Points, bool Fused = false> INLINE void evaluate(const Floats *g, Floats *out) {
  static_assert(Coefficients >= 1 && Coefficients <= 5 && Points >= 3 && Points <= TRANSFORM_POINTS);
  Floats even_p = g[0], even_q = g[0], odd_p = zeros(), odd_q = zeros();
  if constexpr (Coefficients > 1) odd_p = scaled(P, g[1]), odd_q = scaled(Q, g[1]);
  if constexpr (Coefficients > 2) even_p = plus(even_p, P2, g[2]), even_q = plus(even_q, Q2, g[2]);
  if constexpr (Coefficients > 3) odd_p = plus(odd_p, P2 * P, g[3]), odd_q = plus(odd_q, Q2 * Q, g[3]);
  if constexpr (Coefficients > 4) even_p = plus(even_p, P2 * P2, g[4]), even_q = plus(even_q, Q2 * Q2, g[4]);
  constexpr bool fused = Fused && (Coefficients == 2 || Coefficients == 3);
  out[0] = g[0], out[1] = g[Coefficients - 1], out[2] = fused ? plus(even_p, P, g[1]) : add(even_p, odd_p);
  if constexpr (Points > 3) out[3] = fused ? minus(even_p, P, g[1]) : subtract(even_p, odd_p);
  if constexpr (Points > 4) out[4] = fused ? plus(even_q, Q, g[1]) : add(even_q, odd_q);
  if constexpr (Points > 5) out[5] = fused ? minus(even_q, Q, g[1]) : subtract(even_q, odd_q);
}

/* G g: a row of a filter to its values at all points. */
template <int Kernel, bool Fused> INLINE void transform_filter(const Floats *g, Floats *out) {
  evaluate<Kernel, TRANSFORM_POINTS, Fused>(g, out);
  for (int point = 0; point < TRANSFORM_POINTS; point++) out[point] = scaled(NORMAL[point], out[point]);
}

/* The parts of A^T s that the points P, -P, Q and -Q have: sums of even powers of s(p) + s(-p), of odd ones of s(p) -
 * s(-p). */
template <int Outputs> INLINE void sum_powers(Floats even_p, Floats odd_p, Floats even_q, Floats odd_q, Floats *out) {
  static_assert(Outputs >= 1 && Outputs <= 5);
  out[0] = add(even_p, even_q);
  if constexpr (Outputs > 1) out[1] = plus(scaled(P, odd_p), Q, odd_q);
  if constexpr (Outputs > 2) out[2] = plus(scaled(P2, even_p), Q2, even_q);
  if constexpr (Outputs > 3) out[3] = plus(scaled(P2 * P, odd_p), Q2 * Q, odd_q);
  if constexpr (Outputs > 4) out[4] = plus(scaled(P2 * P2, even_p), Q2 * Q2, even_q);
}

/* A^T s: output j is the sum over the points p of p^j s, with the point infinity in the last. */
template <int Points, int Outputs> INLINE void transform_output(const Floats *s, Floats *out) {
  static_assert(Points >= 3 && Points <= TRANSFORM_POINTS);
  Floats even_p = s[2], odd_p = s[2], even_q = zeros(), odd_q = zeros();
  if constexpr (Points > 3) even_p = add(s[2], s[3]), odd_p = subtract(s[2], s[3]);
  if constexpr (Points > 4) even_q = s[4], odd_q = s[4];
  if constexpr (Points > 5) even_q = add(s[4], s[5]), odd_q = subtract(s[4], s[5]);
  sum_powers<Outputs>(even_p, odd_p, even_q, odd_q, out);
  out[0] = add(s[0], out[0]), out[Outputs - 1] = add(out[Outputs - 1], s[1]);
}

/* The same of a full tile's sums that lack NORMAL's scale: the gradient of a row's taps. */
template <int Taps> INLINE void transform_tap_sums(const Floats *s, Floats *out) {
  const Floats minus_p = scaled(NORMAL[3], s[3]), minus_q = scaled(NORMAL[5], s[5]);
  const Floats normal_p = broadcast(NORMAL[2]), normal_q = broadcast(NORMAL[4]);
  sum_powers<Taps>(multiply_add(normal_p, s[2], minus_p), multiply_subtract(normal_p, s[2], minus_p),
                   multiply_add(normal_q, s[4], minus_q), multiply_subtract(normal_q, s[4], minus_q), out);
  out[0] = plus(out[0], NORMAL[0], s[0]), out[Taps - 1] = plus(out[Taps - 1], NORMAL[1], s[1]);
}

/* Rows of bfloat16 images, 16 channels at a time. With Masked, values count only where those at `mask` are above 0. */
template <bool Masked> struct PixelRow {
  const bfloat16 *values, *mask;
  int width;
  Index channels;

  /* one pixel; 0 outside the row */
  INLINE Floats operator[](int column) const {
    if (static_cast<unsigned>(column) >= static_cast<unsigned>(width)) return zeros();
    if constexpr (Masked) return load_where_positive(values + column * channels, mask + column * channels);
    return load(values + column * channels);
  }
  INLINE PixelRow from_channel(int channel) const {
    return {values + channel, Masked ? mask + channel : nullptr, width, channels};
  }
};

/* The pixels under the tiles of a row, tile after tile; neighbouring tiles share kernel - 1 of them. */
template <int Kernel, bool Masked> struct TilePixels {
  static constexpr int step = outputs_of_tile(TRANSFORM_POINTS, Kernel);
  PixelRow<Masked> row;
  int next; /* column of the first pixel not fetched */
  Floats d[TRANSFORM_POINTS];

  INLINE TilePixels(PixelRow<Masked> row, int padding) : row(row), next(Kernel - 1 - padding) {
    for (int j = 0; j < Kernel - 1; j++) d[j + step] = row[j - padding];
  }
  /* the next tile's values at its points */
  template <int Points> INLINE void transform_next(Floats *out) {
    for (int j = 0; j < Kernel - 1; j++) d[j] = d[j + step];
    for (int j = Kernel - 1; j < Points; j++) d[j] = row[next++];
    transform_input<Points>(d, out);
  }
};

} // namespace
