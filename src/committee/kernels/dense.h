/* Dense layers, forward and backward: products of matrices, bfloat16 in and out, sums float32.
 *
 * All three are sums of numbers times vectors of 16. A block of rows by one or two such vectors is summed in registers,
 * from the first product to the last, so that a result depends neither on the other rows nor on how many there are.
 * A row or vector of less than 16 values is filled up with zeros where it is copied.
 */
#pragma once
#include <array>
#include <cstring>
#include <utility>
#include "convolution.h"

namespace {

constexpr int SIDE_BY_SIDE = MOST_SUMS >= 16 ? 2 : 1; /* vectors, beside which a number is loaded once for both */
constexpr int MOST_ROWS = MOST_SUMS / SIDE_BY_SIDE;

INLINE Index filled_up(Index count) { return (count + 15) / 16 * 16; }

/* At most 16 values; what is missing is 0. */
INLINE Floats load_some(const bfloat16 *from, Index count) {
  if (count >= 16) return load(from);
  bfloat16 values[16] = {};
  std::memcpy(values, from, sizeof(bfloat16) * count);
  return load(values);
}
INLINE Floats load_some_where_positive(const bfloat16 *from, const bfloat16 *sign, Index count) {
  if (count >= 16) return load_where_positive(from, sign);
  bfloat16 values[16] = {}, signs[16] = {};
  std::memcpy(values, from, sizeof(bfloat16) * count), std::memcpy(signs, sign, sizeof(bfloat16) * count);
  return load_where_positive(values, signs);
}
INLINE void store_some(float *to, Floats values, Index count) { store(first_lanes(count), to, values); }
INLINE void store_some(bfloat16 *to, Floats values, Index count) {
  if (count >= 16) return store(to, values);
  bfloat16 rounded[16];
  store(rounded, values);
  std::memcpy(to, rounded, sizeof(bfloat16) * count);
}

/* --- the product -------------------------------------------------------------------------------------------------- */

/* numbers: `depth` for product k of row i at from + i * row + k * step */
template <class Number> struct NumberRows {
  const Number *from;
  Index row, step;
};

/* vectors: of 16 * depth numbers, those of all products one after the other; those of the next 16 columns `apart` */
template <class Number> struct VectorColumns {
  const Number *from;
  Index apart;
};

template <class Result> struct MatrixResult {
  Result *to;
  Index pitch, columns; /* values from row to row; columns that there are from here on */
  const float *bias;    /* of these columns, or none */
  bool relu;
};

template <class Number, class Result, int Rows, int Columns>
void multiply_rows(NumberRows<Number> rows, VectorColumns<Number> vectors, Index products, MatrixResult<Result> result) {
  using Product = Products<Number>;
  Floats sums[Rows * Columns];
  unrolled<Rows * Columns>([&](auto i) INLINE_LAMBDA {
    sums[i] = result.bias ? load(first_lanes(result.columns - 16 * (i % Columns)), result.bias + 16 * (i % Columns)) : zeros();
  });
  /* Every fourth row has a pointer, the others are reached by one or three times the distance. */
  const Number *groups[(Rows + 3) / 4];
  unrolled<(Rows + 3) / 4>([&](auto i) INLINE_LAMBDA { groups[i] = rows.from + 4 * i * rows.row; });
  const Index one = rows.row, three = 3 * rows.row;
  const Number *vector = vectors.from;
  for (Index k = 0; k < products; k++, vector += 16 * Product::depth) {
    typename Product::Vector loaded[Columns];
    unrolled<Columns>([&](auto c) INLINE_LAMBDA { loaded[c] = Product::load(vector + c * vectors.apart); });
    unrolled<Rows>([&](auto r) INLINE_LAMBDA {
      const Number *number = groups[r / 4] + (r % 4 == 0 ? 0 : r % 4 == 1 ? one : r % 4 == 2 ? 2 * one : three);
      unrolled<Columns>([&](auto c) INLINE_LAMBDA {
        sums[r * Columns + c] = Product::dot(sums[r * Columns + c], loaded[c], number);
      });
    });
    unrolled<(Rows + 3) / 4>([&](auto i) INLINE_LAMBDA { groups[i] += rows.step; });
  }
  const Floats least = lower_bound(result.relu);
  unrolled<Rows * Columns>([&](auto i) INLINE_LAMBDA {
    constexpr int row = i / Columns, column = 16 * (i % Columns);
    store_some(result.to + row * result.pitch + column, larger_of(least, sums[i]), result.columns - column);
  });
}

/* The functions for 1 ... MOST_ROWS rows and 1 ... SIDE_BY_SIDE vectors. */
template <class Number, class Result> struct RowFunctions {
  using Function = void (*)(NumberRows<Number>, VectorColumns<Number>, Index, MatrixResult<Result>);
  template <int... I>
  static constexpr std::array<Function, sizeof...(I)> all(std::integer_sequence<int, I...>) {
    return {multiply_rows<Number, Result, I % MOST_ROWS + 1, I / MOST_ROWS + 1>...};
  }
  static constexpr auto table = all(std::make_integer_sequence<int, MOST_ROWS * SIDE_BY_SIDE>{});
  static Function of(Index rows, Index vectors) { return table[(vectors - 1) * MOST_ROWS + rows - 1]; }
};

/* All columns of a block of rows, at most MOST_ROWS. */
template <class Number, class Result>
void multiply_block(NumberRows<Number> rows, Index number, VectorColumns<Number> vectors, Index products,
                    MatrixResult<Result> result) {
  const Index columns = result.columns;
  for (Index c = 0, taken; c < columns; c += 16 * taken) {
    taken = columns - c > 16 * (SIDE_BY_SIDE - 1) ? SIDE_BY_SIDE : 1;
    RowFunctions<Number, Result>::of(number, taken)(
        rows, {vectors.from + c / 16 * vectors.apart, vectors.apart}, products,
        {result.to + c, result.pitch, columns - c, result.bias ? result.bias + c : nullptr, result.relu});
  }
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* Numbers of each of the two that pack_dense writes. */
Index dense_numbers(int inputs, int outputs) { return filled_up(inputs) * filled_up(outputs); }

/* weights (output, input) -> forward (output / 16, input / depth, 16, depth) and, for the gradient of the input,
 * backward (input / 16, output / depth, 16, depth), both filled up with zeros */
template <class Number>
void pack_dense(const float *weights, Number *forward, Number *backward, int inputs, int outputs) {
  using Product = Products<Number>;
  const Index in = filled_up(inputs), out = filled_up(outputs);
  const auto row = [&](Index o, Index c) INLINE_LAMBDA {
    return o < outputs ? load(first_lanes(inputs - c), weights + o * inputs + c) : zeros();
  };
  for (Index o = 0; o < out; o += 2)
    for (Index c = 0; c < in; c += 16) {
      const Floats first = row(o, c), second = row(o + 1, c);
      Product::store_two(backward + 16 * (c / 16 * out + o), 16, first, second);
      Product::scatter_two(forward + 16 * (o / 16 * in + c) + Product::depth * (o % 16), 16 * Product::depth, first,
                           second);
    }
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* Numbers of scratch for `dense`. */
Index dense_scratch(int inputs) { return MOST_ROWS * filled_up(inputs); }

/* Rows of x as numbers filled up with zeros: as they are where they can be, else in the scratch. */
template <class Number>
NumberRows<Number> number_rows(const bfloat16 *x, Index rows, Index values, [[maybe_unused]] Number *scratch) {
  const Index filled = filled_up(values);
  if constexpr (std::is_same_v<Number, bfloat16>)
    if (values == filled) return {x, values, Products<Number>::depth};
  for (Index r = 0; r < rows; r++)
    for (Index c = 0; c < filled; c += 16) store(scratch + r * filled + c, load_some(x + r * values + c, values - c));
  return {scratch, filled, Products<Number>::depth};
}

/* x (row, input) -> y (row, output), with bias and relu; weights: `forward` of pack_dense */
template <class Number>
void dense(const bfloat16 *x, const Number *weights, const float *bias, bfloat16 *y, Index rows, int inputs,
           int outputs, bool relu, Number *scratch) {
  constexpr int depth = Products<Number>::depth;
  const Index filled = filled_up(inputs);
  in_equal_parts(rows, MOST_ROWS, [&](Index first, Index number) {
    multiply_block<Number, bfloat16>(number_rows(x + first * inputs, number, inputs, scratch), number,
                                     {weights, 16 * filled}, filled / depth,
                                     {y + first * outputs, outputs, outputs, bias, relu});
  });
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* Numbers of scratch for `dense_gradient`: dy by rows and by columns, and SIDE_BY_SIDE columns of vectors of x. */
Index dense_gradient_scratch(Index rows, int outputs) {
  return (rows + 1) * (2 * filled_up(outputs) + 16 * SIDE_BY_SIDE);
}

/* dy, which counts only where the values of `mask` are above 0 -> its rows and (row / depth, output, depth) as numbers,
 * filled up with zeros, and bias_gradient (output), its sum */
template <class Number>
void pack_gradient(const bfloat16 *dy, const bfloat16 *mask, Index rows, Index outputs, Number *by_row,
                   Number *by_column, float *bias_gradient) {
  using Product = Products<Number>;
  const Index filled = filled_up(outputs);
  for (Index o = 0; o < filled; o += 16) {
    const auto row = [&](Index r) INLINE_LAMBDA {
      if (r >= rows) return zeros();
      const Index at = r * outputs + o;
      return mask ? load_some_where_positive(dy + at, mask + at, outputs - o) : load_some(dy + at, outputs - o);
    };
    Floats sum = zeros();
    for (Index r = 0; r < rows; r += 2) {
      const Floats first = row(r), second = row(r + 1);
      sum = add(sum, add(first, second));
      store(by_row + r * filled + o, first), store(by_row + (r + 1) * filled + o, second);
      Product::store_two(by_column + r * filled + Product::depth * o, filled, first, second);
    }
    store(first_lanes(outputs - o), bias_gradient + o, sum);
  }
}

/* The gradients of x (row, input), unless there is none, of the weights (output, input) and of the bias (output) from
 * dy (row, output), which counts only where those of `mask` are above 0; weights: `backward` of pack_dense */
template <class Number>
void dense_gradient(const bfloat16 *x, const bfloat16 *dy, Optional<const bfloat16> mask, const Number *weights,
                    Optional<bfloat16> dx, float *weight_gradient, float *bias_gradient, Index rows, int inputs,
                    int outputs, Number *scratch) {
  using Product = Products<Number>;
  constexpr int depth = Product::depth;
  const Index filled = filled_up(outputs), pairs = (rows + 1) / 2, even = 2 * pairs;
  Number *const by_row = scratch, *const by_column = by_row + even * filled, *const vectors = by_column + even * filled;
  pack_gradient(dy, mask.values, rows, outputs, by_row, by_column, bias_gradient);
  if (dx.values)
    in_equal_parts(rows, MOST_ROWS, [&](Index first, Index number) {
      multiply_block<Number, bfloat16>({by_row + first * filled, filled, depth}, number, {weights, 16 * filled},
                                       filled / depth, {dx.values + first * inputs, inputs, inputs, nullptr, false});
    });
  for (Index c = 0; c < inputs; c += 16 * SIDE_BY_SIDE) {
    const Index here = inputs - c < 16 * SIDE_BY_SIDE ? inputs - c : 16 * SIDE_BY_SIDE;
    for (Index i = 0; i < here; i += 16)
      for (Index r = 0; r < even; r += 2) {
        const bfloat16 *from = x + r * inputs + c + i;
        const Floats first = load_some(from, here - i);
        const Floats second = r + 1 < rows ? load_some(from + inputs, here - i) : zeros();
        Product::store_two(vectors + i * even + 16 * r, 16, first, second);
      }
    in_equal_parts(outputs, MOST_ROWS, [&](Index first, Index number) {
      multiply_block<Number, float>({by_column + depth * first, depth, depth * filled}, number, {vectors, 16 * even},
                                    even / depth,
                                    {weight_gradient + first * inputs + c, inputs, here, nullptr, false});
    });
  }
}

} // namespace
