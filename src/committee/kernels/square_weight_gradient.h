/* Gradient of a convolution's weights by tiles of squares: what weight_gradient.h does by tiles of rows. */
#pragma once
#include <array>
#include "square_convolution.h"
#include "weight_gradient.h"

namespace {
namespace by_squares {

constexpr Index GRADIENT_BYTES = 448 << 10; /* transformed input and gradient of what is worked on together */

/* Numbers of scratch for `weight_gradient`: input and gradient, transformed, and a few rows. */
Index weight_gradient_scratch(int height, int width, int inputs, int outputs, int kernel, int padding) {
  const Tiles tiles(height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1, kernel);
  constexpr Index many = 1 << 20; /* images, however many there are */
  return Division(many, tiles, inputs + outputs, GRADIENT_BYTES).points(tiles) * (inputs + outputs) +
         RowBuffer::numbers(tiles);
}

/* Numbers of the sums that `weight_gradient` adds to. */
Index weight_gradient_sums(int, int inputs, int outputs) { return Index{POINTS} * inputs * outputs; }

/* --- transform of the gradient ------------------------------------------------------------------------------------ */

template <int Kernel, bool Masked>
INLINE Floats transform_gradient_row(PixelRow<Masked> row, RowTiles tiles, Floats sum, float *to) {
  int column = 0;
  const auto tile = [&](auto points) INLINE_LAMBDA {
    constexpr int outputs = outputs_of_tile(points, Kernel);
    Floats gradient[outputs], values[TRANSFORM_POINTS];
    for (int j = 0; j < outputs; j++) gradient[j] = row[column + j], sum = add(sum, gradient[j]);
    evaluate<outputs, points>(gradient, values);
    unrolled<points>([&](auto p) INLINE_LAMBDA { store(to + 16 * p, values[p]); });
    column += outputs, to += 16 * TRANSFORM_POINTS;
  };
  for (int full = 0; full < tiles.full; full++) tile(std::integral_constant<int, TRANSFORM_POINTS>{});
  with_last_tile<Kernel>(tiles.last, tile);
  return sum;
}

/* The gradient of an image's outputs, `image` its first row under the tiles -> its values at the points; adds to the
 * gradient of the bias. */
template <int Kernel, bool Masked>
void transform_gradient(PixelRow<Masked> image, RowBuffer buffer, float *bias_sums, Index number,
                        const PointValues &to) {
  constexpr int step = outputs_of_tile(TRANSFORM_POINTS, Kernel);
  for (int c = 0; c < image.channels; c += 16) {
    RowOfTiles out(to, number, c / 16);
    Floats sum = zeros();
    for (int t = 0; t < to.tiles.rows(); t++)
      with_points<Kernel>(to.tiles.down, t, [&](auto points) INLINE_LAMBDA {
        constexpr int rows = outputs_of_tile(points, Kernel);
        for (int r = 0; r < rows; r++) {
          const Index at = (Index{t} * step + r) * image.width * image.channels + c;
          sum = transform_gradient_row<Kernel, Masked>(
              {image.values + at, Masked ? image.mask + at : nullptr, image.width, image.channels}, to.tiles.across,
              sum, buffer[r]);
        }
        transform_across_rows<rows, points>(buffer, 0, to.tiles.across, out,
                                            [&](const Floats *d, Floats *values)
                                                INLINE_LAMBDA { evaluate<rows, points>(d, values); });
      });
    if (bias_sums) store(bias_sums + c, add(load(bias_sums + c), sum));
  }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

constexpr int MOST_INPUTS = MOST_SUMS < 16 ? MOST_SUMS : 16;

/* Adds to one point's sums (input, output) of so many inputs and 16 outputs the products of tiles; x, dy: (tile, 16) */
using SumFunction = void (*)(const float *x, const float *dy, Index tiles, float *sums, Index outputs);

template <int Inputs> void sum_products(const float *x, const float *dy, Index tiles, float *sums, Index outputs) {
  using Product = Products<float>;
  Floats total[Inputs];
  unrolled<Inputs>([&](auto i) INLINE_LAMBDA { total[i] = load(sums + i * outputs); });
  for (const float *end = dy + 16 * tiles; dy < end; dy += 16, x += 16) {
    const Product::Vector vector = Product::load(dy);
    unrolled<Inputs>([&](auto i) INLINE_LAMBDA { total[i] = Product::dot(total[i], vector, x + i); });
  }
  unrolled<Inputs>([&](auto i) INLINE_LAMBDA { store(sums + i * outputs, total[i]); });
}

template <int... I> constexpr std::array<SumFunction, MOST_INPUTS> all_sums(std::integer_sequence<int, I...>) {
  return {sum_products<I + 1>...};
}
constexpr std::array<SumFunction, MOST_INPUTS> SUM_FUNCTIONS = all_sums(std::make_integer_sequence<int, MOST_INPUTS>{});

/* All sums (point, input, output) of some images. */
void add_products(const PointValues &x, const PointValues &dy, Index images, int inputs, int outputs, float *sums) {
  for (int p = 0; p < POINTS; p++, sums += Index{inputs} * outputs) {
    const Index tiles = images * x.tiles.with_point(p);
    for (int i = 0; tiles && i < inputs; i += 16)
      in_equal_parts(16, MOST_INPUTS, [&](Index at, Index here) {
        for (int o = 0; o < outputs; o += 16)
          SUM_FUNCTIONS[here - 1](x.first[p] + i / 16 * x.part[p] + at, dy.first[p] + o / 16 * dy.part[p], tiles,
                                  sums + (i + at) * outputs + o, outputs);
      });
  }
}

/* --- the gradient ------------------------------------------------------------------------------------------------- */

template <int Kernel, bool Masked>
void weight_gradient_of(const bfloat16 *x, const bfloat16 *dy, const bfloat16 *mask, float *sums, float *bias_sums,
                        Index images, int height, int width, int inputs, int outputs, int padding, float *scratch) {
  const int y_height = height + 2 * padding - Kernel + 1, y_width = width + 2 * padding - Kernel + 1;
  const Tiles all_tiles(y_height, y_width, Kernel);
  const Division division(images, all_tiles, inputs + outputs, GRADIENT_BYTES);
  const RowBuffer buffer(scratch, all_tiles);
  float *const x_from = scratch + RowBuffer::numbers(all_tiles);
  float *const y_from = x_from + division.points(all_tiles) * inputs;
  const Index x_image = Index{height} * width * inputs, y_row = Index{y_width} * outputs, y_image = y_height * y_row;
  division.for_each(images, all_tiles, [&](Index n, Index together, int first, const Tiles &tiles) {
    const int top = first * outputs_of_tile(TRANSFORM_POINTS, Kernel);
    const PointValues x_values(x_from, tiles, together, inputs), y_values(y_from, tiles, together, outputs);
    for (Index i = 0; i < together; i++) {
      transform_input<Kernel, false>(PixelRow<false>{x + (n + i) * x_image, nullptr, width, inputs}, height, padding,
                                     top, buffer, i, x_values);
      const Index at = (n + i) * y_image + top * y_row;
      transform_gradient<Kernel, Masked>(PixelRow<Masked>{dy + at, Masked ? mask + at : nullptr, y_width, outputs},
                                         buffer, bias_sums, i, y_values);
    }
    add_products(x_values, y_values, together, inputs, outputs, sums);
  });
}

/* As ::weight_gradient, but the sums are (point, input, output). */
void weight_gradient(const bfloat16 *x, const bfloat16 *dy, Optional<const bfloat16> mask, float *sums,
                     Optional<float> bias_sums, Index images, int height, int width, int inputs, int outputs,
                     int kernel, int padding, float *scratch) {
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    const auto of = mask.values ? weight_gradient_of<size, true> : weight_gradient_of<size, false>;
    of(x, dy, mask.values, sums, bias_sums.values, images, height, width, inputs, outputs, padding, scratch);
  });
}

/* sums (point, input, output) -> gradient (output, row, column, input) */
template <int Kernel> void transform_weight_gradient_of(const float *sums, float *gradient, int inputs, int outputs) {
  for (int c = 0; c < inputs; c++)
    for (int o = 0; o < outputs; o += 16) {
      Floats half[Kernel][TRANSFORM_POINTS];
      unrolled<TRANSFORM_POINTS>([&](auto p) INLINE_LAMBDA {
        Floats s[TRANSFORM_POINTS], taps[Kernel];
        unrolled<TRANSFORM_POINTS>([&](auto q) INLINE_LAMBDA {
          s[q] = load(sums + (Index{q * TRANSFORM_POINTS + p} * inputs + c) * outputs + o);
        });
        transform_tap_sums<Kernel>(s, taps);
        unrolled<Kernel>([&](auto row) INLINE_LAMBDA { half[row][p] = taps[row]; });
      });
      for (int row = 0; row < Kernel; row++) {
        Floats taps[Kernel];
        transform_tap_sums<Kernel>(half[row], taps);
        store_taps<Kernel>(taps, gradient + (Index{o} * Kernel + row) * Kernel * inputs + c, inputs);
      }
    }
}

void transform_weight_gradient(const float *sums, float *gradient, int inputs, int outputs, int kernel) {
  with_constant(KernelSizes{}, kernel,
                [&](auto size) { transform_weight_gradient_of<size>(sums, gradient, inputs, outputs); });
}

} // namespace by_squares
} // namespace
