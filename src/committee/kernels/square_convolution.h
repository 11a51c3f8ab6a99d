/* Convolution by tiles of squares, and the transform of its filters: what convolution.h does by tiles of rows. */
#pragma once
#include "convolution.h"
#include "square_tiles.h"

namespace {
namespace by_squares {

/* Numbers of scratch for `convolution`: transformed input, sums, and a few rows. */
Index convolution_scratch(Index images, int height, int width, int inputs, int kernel, int padding) {
  const Tiles tiles(height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1, kernel);
  return Division(images, tiles, inputs, INPUT_BYTES).points(tiles) * (inputs + 16 * MOST_VECTORS) +
         RowBuffer::numbers(tiles);
}

/* --- output transform --------------------------------------------------------------------------------------------- */

/* The sums of one tile, 16 outputs, those of a point at from[point] + at -> its pixels. */
template <int Kernel, int Down, int Across>
INLINE void transform_output_tile(const float *const *from, Index at, Floats bias, Floats least, bfloat16 *y, Index row,
                                  Index channels) {
  constexpr int rows = outputs_of_tile(Down, Kernel), columns = outputs_of_tile(Across, Kernel);
  Floats half[rows][TRANSFORM_POINTS];
  unrolled<Across>([&](auto p) INLINE_LAMBDA {
    Floats sums[Down], out[rows];
    unrolled<Down>([&](auto q) INLINE_LAMBDA { sums[q] = load(from[q * TRANSFORM_POINTS + p] + at); });
    transform_output<Down, rows>(sums, out);
    unrolled<rows>([&](auto i) INLINE_LAMBDA { half[i][p] = out[i]; });
  });
  unrolled<rows>([&](auto i) INLINE_LAMBDA {
    Floats out[columns];
    transform_output<Across, columns>(half[i], out);
    unrolled<columns>([&](auto j) INLINE_LAMBDA {
      store(y + i * row + j * channels, larger_of(add(out[j], bias), least));
    });
  });
}

/* Sums of a row of tiles, from `at` on, neighbouring tiles `apart` -> its pixels. */
template <int Kernel, int Down>
void transform_output_tiles(const float *const *from, Index at, Index apart, RowTiles across, Floats bias, Floats least,
                            bfloat16 *y, Index row, Index channels) {
  constexpr int step = outputs_of_tile(TRANSFORM_POINTS, Kernel);
  for (int tile = 0; tile < across.full; tile++, at += apart, y += step * channels)
    transform_output_tile<Kernel, Down, TRANSFORM_POINTS>(from, at, bias, least, y, row, channels);
  with_last_tile<Kernel>(across.last, [&](auto points) INLINE_LAMBDA {
    transform_output_tile<Kernel, Down, points>(from, at, bias, least, y, row, channels);
  });
}

/* --- the convolution ---------------------------------------------------------------------------------------------- */

/* Vectors * 16 outputs of the images whose transformed input is `values`; filters (vector, point, input, 16) */
template <int Kernel, int Vectors>
void outputs_of(const PointValues &values, Index images, int inputs, const float *filters, const float *bias,
                Floats least, float *scratch, bfloat16 *y, Index image, Index row, Index channels) {
  using Functions = TileFunctions<float, Vectors>;
  const Tiles &tiles = values.tiles;
  const PointValues sums(scratch, tiles, images * Vectors, 16); /* (image, row of tiles, tile, vector, 16) */
  const Index filter_point = Index{inputs} * 16;
  for (int p = 0; p < POINTS; p++) {
    in_equal_parts(images * tiles.with_point(p), Functions::most, [&](Index tile, Index here) {
      Functions::table[here - 1](values.first[p] + tile * 16, 0, values.part[p], filters + p * filter_point,
                                 POINTS * filter_point, 1, inputs / 16, sums.first[p] + tile * 16 * Vectors);
    });
  }
  constexpr int step = outputs_of_tile(TRANSFORM_POINTS, Kernel);
  RowOfTiles from(sums);
  for (Index n = 0; n < images; n++)
    for (int t = 0; t < tiles.rows(); t++)
      with_points<Kernel>(tiles.down, t, [&](auto points) INLINE_LAMBDA {
        for (int v = 0; v < Vectors; v++)
          transform_output_tiles<Kernel, points>(from.at, 16 * v, 16 * Vectors, tiles.across,
                                                 bias ? load(bias + 16 * v) : zeros(), least,
                                                 y + n * image + t * step * row + 16 * v, row, channels);
        from.pass<points>(tiles.across, 16 * Vectors);
      });
}

template <int Kernel, bool Masked>
void convolution_of(const bfloat16 *x, const bfloat16 *mask, const float *filters, const float *bias, bfloat16 *y,
                    Index images, int height, int width, int inputs, int outputs, int padding, bool relu,
                    float *scratch) {
  const int y_height = height + 2 * padding - Kernel + 1, y_width = width + 2 * padding - Kernel + 1;
  const Tiles all_tiles(y_height, y_width, Kernel);
  const Division division(images, all_tiles, inputs, INPUT_BYTES);
  const RowBuffer buffer(scratch, all_tiles);
  float *const input_values = scratch + RowBuffer::numbers(all_tiles);
  float *const sums = input_values + division.points(all_tiles) * inputs;
  const Index x_image = Index{height} * width * inputs, y_row = Index{y_width} * outputs, y_image = y_height * y_row;
  const Floats least = lower_bound(relu);
  division.for_each(images, all_tiles, [&](Index n, Index together, int first, const Tiles &tiles) {
    const int top = first * outputs_of_tile(TRANSFORM_POINTS, Kernel);
    const PointValues values(input_values, tiles, together, inputs);
    for (Index i = 0; i < together; i++) {
      const Index at = (n + i) * x_image;
      transform_input<Kernel, Masked>(PixelRow<Masked>{x + at, Masked ? mask + at : nullptr, width, inputs}, height,
                                      padding, top, buffer, i, values);
    }
    bfloat16 *const to = y + n * y_image + top * y_row;
    for (int c = 0, vectors; c < outputs; c += 16 * vectors) {
      vectors = outputs - c < 16 * MOST_VECTORS ? 1 : MOST_VECTORS;
      const auto outputs_here = vectors == 1 ? outputs_of<Kernel, 1> : outputs_of<Kernel, MOST_VECTORS>;
      outputs_here(values, together, inputs, filters + Index{c} * POINTS * inputs, bias ? bias + c : nullptr, least,
                   sums, to + c, y_image, y_row, outputs);
    }
  });
}

/* As ::convolution, with the filters of transform_filters here. */
void convolution(const bfloat16 *x, Optional<const bfloat16> mask, const float *filters, Optional<const float> bias,
                 bfloat16 *y, Index images, int height, int width, int inputs, int outputs, int kernel, int padding,
                 bool relu, float *scratch) {
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    const auto of = mask.values ? convolution_of<size, true> : convolution_of<size, false>;
    of(x, mask.values, filters, bias.values, y, images, height, width, inputs, outputs, padding, relu, scratch);
  });
}

/* --- filter transform --------------------------------------------------------------------------------------------- */

/* Numbers of each of the two that transform_filters writes. */
Index filter_numbers(int, int inputs, int outputs) { return Index{POINTS} * inputs * outputs; }

/* tap(row, column) -> the values at the points, `apart`. */
template <int Kernel, class Tap> INLINE void transform_filter_square(Tap tap, float *to, Index apart) {
  Floats half[Kernel][TRANSFORM_POINTS];
  unrolled<Kernel>([&](auto row) INLINE_LAMBDA {
    Floats taps[Kernel];
    unrolled<Kernel>([&](auto k) INLINE_LAMBDA { taps[k] = tap(row, k); });
    transform_filter<Kernel, true>(taps, half[row]);
  });
  unrolled<TRANSFORM_POINTS>([&](auto p) INLINE_LAMBDA {
    Floats taps[Kernel], points[TRANSFORM_POINTS];
    unrolled<Kernel>([&](auto row) INLINE_LAMBDA { taps[row] = half[row][p]; });
    transform_filter<Kernel, true>(taps, points);
    unrolled<TRANSFORM_POINTS>(
        [&](auto q) INLINE_LAMBDA { store(to + (q * TRANSFORM_POINTS + p) * apart, points[q]); });
  });
}

/* weights (output, row, column, input) -> forward (output / 16, point, input, 16), and for the gradient of the input,
 * turned by half a circle, backward (input / 16, point, output, 16). */
template <int Kernel>
void transform_filters_of(const float *weights, float *forward, float *backward, int inputs, int outputs) {
  constexpr int taps = Kernel * Kernel;
  float block[taps][16][16]; /* tap, input, output */
  for (int o = 0; o < outputs; o += 16)
    for (int c = 0; c < inputs; c += 16) {
      for (int i = 0; i < 16; i++) {
        const float *from = weights + Index{o + i} * taps * inputs + c;
        for (int tap = 0; tap < taps; tap++)
          for (int j = 0; j < 16; j++) block[tap][j][i] = from[tap * inputs + j];
        const auto turned = [&](int row, int k)
                                INLINE_LAMBDA { return load(from + (taps - 1 - row * Kernel - k) * inputs); };
        transform_filter_square<Kernel>(turned, backward + Index{c} * POINTS * outputs + (o + i) * 16, outputs * 16);
      }
      for (int j = 0; j < 16; j++) {
        const auto straight = [&](int row, int k) INLINE_LAMBDA { return load(block[row * Kernel + k][j]); };
        transform_filter_square<Kernel>(straight, forward + Index{o} * POINTS * inputs + (c + j) * 16, inputs * 16);
      }
    }
}

void transform_filters(const float *weights, float *forward, float *backward, int inputs, int outputs, int kernel) {
  with_constant(KernelSizes{}, kernel,
                [&](auto size) { transform_filters_of<size>(weights, forward, backward, inputs, outputs); });
}

} // namespace by_squares
} // namespace
