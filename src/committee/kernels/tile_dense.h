/* Dense layers by tiles: three products of matrices, forward, the gradient of the input, and that of the weights.
 *
 * Each is a product of rows by columns: rows in tiles of 16 by 32 numbers, columns in tiles of 32 numbers by 16. Two by
 * two tiles of sums take four loads for four dots, as in tile_convolution.h. For 128 images, 1,600 inputs and 128
 * outputs each of the three is 3,200 dots, 51,000 cycles; beside them, packing the weights takes 400 transposes of 64
 * shuffles and as many cycles again in rows of pairs, copying x, where its rows do not end with a tile's, 400 KB.
 */
#pragma once
#include "dense.h"
#include "tile_weight_gradient.h"

namespace {
namespace by_tiles {

INLINE Index filled_up_to_32(Index count) { return (count + 31) / 32 * 32; }

/* Tiles of rows: the next 16 rows are 16 * `row` bytes further; `blocks` of so many steps, a step is 64 bytes. */
struct MatrixRows {
  const bfloat16 *from;
  Index row, block;
  int blocks, steps;
};

/* So many rows by the columns of `result`; tiles of columns (column / 16, block, step, 16, 16, 2). Rows and columns
 * that do not fill a tile are multiplied, but not written. */
template <class Tiles, class Result>
void multiply_matrices(Tiles &tiles, MatrixRows rows, Index number, const bfloat16 *columns,
                       MatrixResult<Result> result) {
  static constexpr TileProducts<Tiles> FUNCTIONS[2][2] = {{multiply<Tiles, 1, 1>, multiply<Tiles, 1, 2>},
                                                          {multiply<Tiles, 2, 1>, multiply<Tiles, 2, 2>}};
  const Index apart = rows.blocks * rows.steps * TILE_NUMBERS;
  const Floats least = lower_bound(result.relu);
  alignas(64) float sums[4 * 256];
  for (Index r = 0; r < number; r += 32)
    for (Index c = 0; c < result.columns; c += 32) {
      const int down = number - r > 16 ? 2 : 1, across = result.columns - c > 16 ? 2 : 1;
      FUNCTIONS[down - 1][across - 1](tiles, rows.from + r * rows.row / Index{sizeof(bfloat16)}, rows.row, rows.block,
                                      columns + c / 16 * apart, apart, rows.blocks, rows.steps, sums);
      for (int tile = 0; tile < down * across; tile++) {
        const Index row = r + tile / across * 16, column = c + tile % across * 16, left = result.columns - column;
        const Floats bias = result.bias ? load(first_lanes(left), result.bias + column) : zeros();
        for (Index i = 0, end = std::min<Index>(16, number - row); i < end; i++)
          store_some(result.to + (row + i) * result.pitch + column,
                     larger_of(least, add(load(sums + 256 * tile + 16 * i), bias)), left);
      }
    }
}

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* Numbers of each of the two that pack_dense writes. */
Index dense_numbers(int inputs, int outputs) {
  return std::max(filled_up_to_32(inputs) * filled_up(outputs), filled_up(inputs) * filled_up_to_32(outputs));
}

/* weights (output, input) -> forward (output / 16, input / 32, 16, 16, 2) and, for the gradient of the input, backward
 * (input / 16, output / 32, 16, 16, 2), both filled up with zeros */
void pack_dense(const float *weights, bfloat16 *forward, bfloat16 *backward, int inputs, int outputs) {
  const auto row = [&](Index o, Index c) INLINE_LAMBDA {
    return o < outputs && c < inputs ? load(first_lanes(inputs - c), weights + o * inputs + c) : zeros();
  };
  for (Index o = 0; o < outputs; o += 16)
    for (Index c = 0; c < inputs; c += 32, forward += TILE_NUMBERS) {
      alignas(64) bfloat16 rows[16][TILE_ROW];
      for (int i = 0; i < 16; i++) store(rows[i], row(o + i, c)), store(rows[i] + 16, row(o + i, c + 16));
      transpose_16(rows, sizeof rows[0], forward);
    }
  const Index filled = filled_up_to_32(outputs);
  for (Index o = 0; o < filled; o += 2)
    for (Index c = 0; c < inputs; c += 16)
      Products<bfloat16>::store_two(backward + c * filled + o / 2 * TILE_ROW, 0, row(o, c), row(o + 1, c));
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

constexpr Index ROWS_TOGETHER = 32;

/* Numbers of scratch for `dense`. */
Index dense_scratch(int inputs) { return ROWS_TOGETHER * filled_up_to_32(inputs); }

/* As dense.h's; weights as pack_dense makes them. */
template <class Tiles>
void dense(const bfloat16 *x, const bfloat16 *weights, const float *bias, bfloat16 *y, Index rows, int inputs,
           int outputs, bool relu, bfloat16 *scratch) {
  const Index filled = filled_up_to_32(inputs), number = sizeof(bfloat16);
  const int steps = static_cast<int>(filled / 32);
  Tiles tiles;
  std::memset(static_cast<void *>(scratch), 0, number * dense_scratch(inputs));
  for (Index r = 0; r < rows; r += ROWS_TOGETHER, x += ROWS_TOGETHER * inputs, y += ROWS_TOGETHER * outputs) {
    const Index here = std::min(rows - r, ROWS_TOGETHER);
    const bool as_it_is = inputs == filled && here % 16 == 0;
    if (!as_it_is) copy_rows(x, nullptr, static_cast<int>(here), inputs, scratch, filled);
    multiply_matrices<Tiles, bfloat16>(tiles, {as_it_is ? x : scratch, number * filled, 0, 1, steps}, here, weights,
                                       {y, outputs, outputs, bias, relu});
  }
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

/* Numbers of scratch for `dense_gradient`: dy by rows and by columns, and pairs of rows of 32 columns of x. */
Index dense_gradient_scratch(Index rows, int outputs) {
  return filled_up_to_32(rows) * (filled_up_to_32(outputs) + filled_up(outputs) + 32);
}

/* Rows of 16 columns of x -> (row / 2, 16, 2), filled up with zeros */
INLINE void make_pairs(const bfloat16 *x, Index rows, Index pitch, Index columns, bfloat16 *pairs) {
  for (Index r = 0; r < filled_up_to_32(rows); r += 2, pairs += TILE_ROW) {
    const Floats first = r < rows ? load_some(x + r * pitch, columns) : zeros();
    const Floats second = r + 1 < rows ? load_some(x + (r + 1) * pitch, columns) : zeros();
    Products<bfloat16>::store_two(pairs, 0, first, second);
  }
}

/* As dense.h's; weights as pack_dense makes them. */
template <class Tiles>
void dense_gradient(const bfloat16 *x, const bfloat16 *dy, Optional<const bfloat16> mask, const bfloat16 *weights,
                    Optional<bfloat16> dx, float *weight_gradient, float *bias_gradient, Index rows, int inputs,
                    int outputs, bfloat16 *scratch) {
  const Index filled = filled_up_to_32(outputs), filled_rows = filled_up_to_32(rows), number = sizeof(bfloat16);
  const Index tiles_of_outputs = filled_up(outputs) / 16;
  const int row_steps = static_cast<int>(filled_rows / 32), steps = static_cast<int>(filled / 32);
  bfloat16 *const by_row = scratch, *const by_column = by_row + filled_rows * filled;
  bfloat16 *const pairs = by_column + filled_rows * filled_up(outputs);
  std::memset(static_cast<void *>(by_row), 0, number * filled_rows * filled);
  for (Index o = 0; o < outputs; o += 16) {
    Floats sum = zeros();
    for (Index r = 0; r < rows; r++) {
      const Index at = r * outputs + o;
      const Floats d = mask.values ? load_some_where_positive(dy + at, mask.values + at, outputs - o)
                                   : load_some(dy + at, outputs - o);
      store(by_row + r * filled + o, d);
      sum = add(sum, d);
    }
    store(first_lanes(outputs - o), bias_gradient + o, sum);
    for (int step = 0; step < row_steps; step++) /* by_column: (row / 32, output / 16, 16, 32) */
      make_input_tiles(by_row + step * 32 * filled + o, filled, 1,
                       by_column + (step * tiles_of_outputs + o / 16) * TILE_NUMBERS);
  }
  Tiles tiles;
  if (dx.values)
    multiply_matrices<Tiles, bfloat16>(tiles, {by_row, number * filled, 0, 1, steps}, rows, weights,
                                       {dx.values, inputs, inputs, nullptr, false});
  const MatrixRows by_outputs{by_column, 64, tiles_of_outputs * TILE_NUMBERS * number, row_steps, 1};
  for (Index c = 0; c < inputs; c += 32) {
    const Index here = std::min<Index>(inputs - c, 32);
    for (Index i = 0; i < here; i += 16) make_pairs(x + c + i, rows, inputs, here - i, pairs + i * filled_rows);
    multiply_matrices<Tiles, float>(tiles, by_outputs, outputs, pairs,
                                    {weight_gradient + c, inputs, here, nullptr, false});
  }
}

} // namespace by_tiles
} // namespace
