/* Gradient of a convolution's weights: the same transforms, products summed over the tiles of all images.
 *
 * A tile's pixels with the gradient of its outputs as filter give its part of the gradient of a row's taps: F(3, 4) or
 * F(5, 2), with the same points. Products (point, row of the kernel, input, output) are added up over the tiles of all
 * images; one output transform at the end makes them taps. Images go in pairs, whose numbers are neighbours where a dot
 * product takes two.
 */
#pragma once
#include <cstring>
#include "convolution.h"

namespace {

/* Pairs of images worked on together, so many that the sums are seldom fetched from memory. */
Index pairs_together(Index tiles_of_image) {
  constexpr Index enough = 96;
  return tiles_of_image >= enough ? 1 : (enough - 1 + tiles_of_image) / tiles_of_image;
}

/* Numbers of scratch for `weight_gradient`: input and gradient of the pairs, transformed, and a row of zeros. */
Index weight_gradient_scratch(int height, int width, int inputs, int outputs, int kernel, int padding) {
  const int framed = height + 2 * padding, y_height = framed - kernel + 1, y_width = width + 2 * padding - kernel + 1;
  const Index tiles = RowTiles(y_width, kernel).with_point(0);
  const Index x_row = Index{width} * inputs, y_row = Index{y_width} * outputs;
  return 2 * TRANSFORM_POINTS * pairs_together(y_height * tiles) * tiles *
             (Index{framed} * inputs + Index{y_height} * outputs) +
         (x_row > y_row ? x_row : y_row);
}

/* Numbers of the sums that `weight_gradient` adds to. */
Index weight_gradient_sums(int kernel, int inputs, int outputs) {
  return Index{TRANSFORM_POINTS} * kernel * inputs * outputs;
}

/* --- transforms of pairs of rows ---------------------------------------------------------------------------------- */

/* Puts the values of a tile of two images, 16 channels, at `at` of each point's array. */
template <class Number, int Points>
INLINE void store_pair(Number *const *out, Index at, Index channels, const Floats *a, const Floats *b) {
  for (int p = 0; p < Points; p++) Products<Number>::store_two(out[p] + at, channels, a[p], b[p]);
}

/* The same row of two images -> out[point]: (tile, channel, image), with products of depth 1 (tile, image, channel) */
template <class Number, int Kernel>
INLINE void transform_input_pair(const bfloat16 *a, const bfloat16 *b, int width, int channels, int padding,
                                 RowTiles tiles, Number *const *out) {
  for (int c = 0; c < channels; c += 16) {
    Floats points_a[TRANSFORM_POINTS], points_b[TRANSFORM_POINTS];
    TilePixels<Kernel, false> pixels_a({a + c, nullptr, width, channels}, padding);
    TilePixels<Kernel, false> pixels_b({b + c, nullptr, width, channels}, padding);
    Index at = Products<Number>::depth * c;
    for (int tile = 0; tile < tiles.full; tile++, at += 2 * channels) {
      pixels_a.template transform_next<TRANSFORM_POINTS>(points_a);
      pixels_b.template transform_next<TRANSFORM_POINTS>(points_b);
      store_pair<Number, TRANSFORM_POINTS>(out, at, channels, points_a, points_b);
    }
    with_last_tile<Kernel>(tiles.last, [&](auto last) INLINE_LAMBDA {
      pixels_a.template transform_next<last>(points_a), pixels_b.template transform_next<last>(points_b);
      store_pair<Number, last>(out, at, channels, points_a, points_b);
    });
  }
}

/* The gradients of a row of outputs of two images -> out[point], likewise; adds to the gradient of the bias. */
template <class Number, int Kernel, bool Masked>
INLINE void transform_gradient_pair(PixelRow<Masked> a, PixelRow<Masked> b, RowTiles tiles, float *bias_sums,
                                    Number *const *out) {
  for (int c = 0; c < a.channels; c += 16) {
    const PixelRow<Masked> row_a = a.from_channel(c), row_b = b.from_channel(c);
    Floats sum = zeros();
    Index at = Products<Number>::depth * c;
    int column = 0;
    const auto tile = [&](auto points) INLINE_LAMBDA {
      constexpr int outputs = outputs_of_tile(points, Kernel);
      Floats gradient_a[outputs], gradient_b[outputs], points_a[TRANSFORM_POINTS], points_b[TRANSFORM_POINTS];
      for (int j = 0; j < outputs; j++) {
        gradient_a[j] = row_a[column + j], gradient_b[j] = row_b[column + j];
        sum = add(sum, add(gradient_a[j], gradient_b[j]));
      }
      evaluate<outputs, points>(gradient_a, points_a), evaluate<outputs, points>(gradient_b, points_b);
      store_pair<Number, points>(out, at, a.channels, points_a, points_b);
      column += outputs, at += 2 * a.channels;
    };
    for (int full = 0; full < tiles.full; full++) tile(std::integral_constant<int, TRANSFORM_POINTS>{});
    with_last_tile<Kernel>(tiles.last, tile);
    if (bias_sums) store(bias_sums + c, add(load(bias_sums + c), sum));
  }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* Whether the sums of all rows of the kernel, so many inputs and vectors of 16 outputs live in registers together. */
constexpr bool sums_fit(int kernel, int inputs, int vectors) {
  return kernel * inputs * vectors + vectors - 1 <= MOST_SUMS;
}
constexpr int inputs_at_once(int kernel, int vectors) {
  int inputs = 1;
  while (sums_fit(kernel, 2 * inputs, vectors)) inputs *= 2;
  return inputs;
}
constexpr int vectors_at_once(int kernel, int outputs) {
  int vectors = 4;
  while (vectors > 1 && (16 * vectors > outputs || !sums_fit(kernel, 1, vectors))) vectors /= 2;
  return vectors;
}

/* Adds to one point's sums (row of the kernel, input, output): all rows, Vectors * 16 output channels and as many
 * inputs as have room, over pairs of images of `height` rows of tiles. Pairs are x_pair and dy_pair apart. */
template <class Number>
using SumFunction = void (*)(const Number *x, const Number *dy, float *sums, Index pairs, Index x_pair, Index dy_pair,
                             int height, int tiles, Index inputs, Index outputs);

template <class Number, int Kernel, int Vectors>
void sum_products(const Number *x, const Number *dy, float *sums, Index pairs, Index x_pair, Index dy_pair, int height,
                  int tiles, Index inputs, Index outputs) {
  using Product = Products<Number>;
  constexpr int depth = Product::depth, here = inputs_at_once(Kernel, Vectors), count = Kernel * here * Vectors;
  /* The sums are (row, input, vector). */
  const auto place = [&](int i) {
    return sums + (i / Vectors / here * inputs + i / Vectors % here) * outputs + i % Vectors * 16;
  };
  const Index pitch = 2 * tiles * inputs;
  Floats total[count];
  unrolled<count>([&](auto i) INLINE_LAMBDA { total[i] = load(place(i)); });
  for (Index pair = 0; pair < pairs; pair++) {
    const Number *gradient = dy + pair * dy_pair;
    for (int h = 0; h < height; h++) {
      const Number *rows[Kernel];
      unrolled<Kernel>([&](auto k) INLINE_LAMBDA { rows[k] = x + pair * x_pair + (h + k) * pitch; });
      for (int t = 0; t < 2 / depth * tiles; t++, gradient += depth * outputs) {
        typename Product::Vector vectors[Vectors];
        unrolled<Vectors>([&](auto v) INLINE_LAMBDA { vectors[v] = Product::load(gradient + 16 * depth * v); });
        unrolled<count>([&](auto i) INLINE_LAMBDA {
          constexpr int row = i / Vectors / here, input = i / Vectors % here;
          total[i] = Product::dot(total[i], vectors[i % Vectors], rows[row] + depth * input);
        });
        unrolled<Kernel>([&](auto k) INLINE_LAMBDA { rows[k] += depth * inputs; });
      }
    }
  }
  unrolled<count>([&](auto i) INLINE_LAMBDA { store(place(i), total[i]); });
}

/* --- the gradient ------------------------------------------------------------------------------------------------- */

template <class Number, int Kernel, bool Masked>
void weight_gradient_of(const bfloat16 *x, const bfloat16 *dy, const bfloat16 *mask, float *sums, float *bias_sums,
                        Index images, int height, int width, int inputs, int outputs, int padding, Number *scratch) {
  const int framed = height + 2 * padding, y_height = framed - Kernel + 1, y_width = width + 2 * padding - Kernel + 1;
  const RowTiles tiles(y_width, Kernel);
  const Index x_row = Index{width} * inputs, y_row = Index{y_width} * outputs;
  const Index x_image = height * x_row, y_image = y_height * y_row;
  const Index most = tiles.with_point(0), group = pairs_together(y_height * most);
  /* A point's values are (pair, row, tile ...) of as many tiles as have this point. */
  const Index x_point = group * framed * 2 * most * inputs, y_point = group * y_height * 2 * most * outputs;
  Number *const x_values = scratch, *const y_values = x_values + TRANSFORM_POINTS * x_point;
  bfloat16 *const zero_row = reinterpret_cast<bfloat16 *>(y_values + TRANSFORM_POINTS * y_point);
  std::memset(static_cast<void *>(zero_row), 0, sizeof(bfloat16) * (x_row > y_row ? x_row : y_row));
  Number *to[TRANSFORM_POINTS];
  for (Index n = 0; n < images; n += 2 * group) {
    const Index pairs = (images - n + 1) / 2 < group ? (images - n + 1) / 2 : group;
    for (Index pair = 0; pair < pairs; pair++) {
      const Index image = n + 2 * pair;
      const bool second = image + 1 < images; /* the last pair may lack it */
      for (int row = 0; row < framed; row++) {
        for (int p = 0; p < TRANSFORM_POINTS; p++)
          to[p] = x_values + p * x_point + (pair * framed + row) * 2 * tiles.with_point(p) * inputs;
        const int h = row - padding;
        if (h < 0 || h >= height) {
          for (int p = 0; p < TRANSFORM_POINTS; p++)
            std::memset(static_cast<void *>(to[p]), 0, sizeof(Number) * 2 * tiles.with_point(p) * inputs);
        } else {
          const bfloat16 *a = x + image * x_image + h * x_row;
          transform_input_pair<Number, Kernel>(a, second ? a + x_image : zero_row, width, inputs, padding, tiles, to);
        }
      }
      for (int h = 0; h < y_height; h++) {
        for (int p = 0; p < TRANSFORM_POINTS; p++)
          to[p] = y_values + p * y_point + (pair * y_height + h) * 2 * tiles.with_point(p) * outputs;
        const Index at = image * y_image + h * y_row;
        const PixelRow<Masked> a{dy + at, Masked ? mask + at : nullptr, y_width, outputs};
        const PixelRow<Masked> b{second ? a.values + y_image : zero_row,
                                 Masked ? (second ? a.mask + y_image : zero_row) : nullptr, y_width, outputs};
        transform_gradient_pair<Number, Kernel, Masked>(a, b, tiles, bias_sums, to);
      }
    }
    for (int p = 0; p < TRANSFORM_POINTS; p++) {
      const int across = tiles.with_point(p);
      for (int c = 0, vectors; across && c < outputs; c += 16 * vectors) {
        vectors = vectors_at_once(Kernel, outputs - c);
        with_constant(List<1, 2, 4>{}, vectors, [&](auto count) {
          for (int input = 0; input < inputs; input += inputs_at_once(Kernel, count))
            sum_products<Number, Kernel, count>(
                x_values + p * x_point + Products<Number>::depth * input,
                y_values + p * y_point + Products<Number>::depth * c,
                sums + (Index{p} * Kernel * inputs + input) * outputs + c, pairs, Index{2} * framed * across * inputs,
                Index{2} * y_height * across * outputs, y_height, across, inputs, outputs);
        });
      }
    }
  }
}

/* x (image, height, width, input) and the gradient dy (image, height', width', output), which counts only where `mask`
 * is above 0; sums (point, row, input, output) and bias_sums (output), or none, are added to. */
template <class Number>
void weight_gradient(const bfloat16 *x, const bfloat16 *dy, Optional<const bfloat16> mask, float *sums,
                     Optional<float> bias_sums, Index images, int height, int width, int inputs, int outputs,
                     int kernel, int padding, Number *scratch) {
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    const auto of = mask.values ? weight_gradient_of<Number, size, true> : weight_gradient_of<Number, size, false>;
    of(x, dy, mask.values, sums, bias_sums.values, images, height, width, inputs, outputs, padding, scratch);
  });
}

/* A row's taps of 16 outputs -> gradient (output, row, column, input), from this row and the first output on. */
template <int Kernel> INLINE void store_taps(const Floats *taps, float *gradient, Index inputs) {
  for (int k = 0; k < Kernel; k++) {
    float values[16], *to = gradient + k * inputs;
    store(values, taps[k]);
    for (int i = 0; i < 16; i++, to += Index{Kernel} * Kernel * inputs) *to = values[i];
  }
}

/* sums (point, row, input, output) -> gradient (output, row, column, input) */
template <int Kernel> void transform_weight_gradient_of(const float *sums, float *gradient, int inputs, int outputs) {
  const Index point = Index{Kernel} * inputs * outputs;
  for (int row = 0; row < Kernel; row++)
    for (int c = 0; c < inputs; c++)
      for (int o = 0; o < outputs; o += 16) {
        Floats s[TRANSFORM_POINTS], taps[Kernel];
        for (int p = 0; p < TRANSFORM_POINTS; p++)
          s[p] = load(sums + p * point + (Index{row} * inputs + c) * outputs + o);
        transform_tap_sums<Kernel>(s, taps);
        store_taps<Kernel>(taps, gradient + (Index{o} * Kernel + row) * Kernel * inputs + c, inputs);
      }
}

void transform_weight_gradient(const float *sums, float *gradient, int inputs, int outputs, int kernel) {
  with_constant(KernelSizes{}, kernel,
                [&](auto size) { transform_weight_gradient_of<size>(sums, gradient, inputs, outputs); });
}

} // namespace
