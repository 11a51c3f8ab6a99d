/* Convolution with stride 1, and the transform of its filters. The gradient of its input is a convolution as well. */
#pragma once
#include <array>
#include <utility>
#include "winograd.h"

namespace {

/* What stands below a result: 0 with relu, nothing without. */
INLINE Floats lower_bound(bool relu) { return broadcast(relu ? 0.0f : -__builtin_inff()); }

/* --- how a convolution is divided --------------------------------------------------------------------------------- */

/* Vectors of 16 outputs that are worked on together, and numbers of tiles whose sums of them live in registers. */
constexpr int MOST_VECTORS = MOST_SUMS >= 24 ? 2 : 1;
constexpr int most_tiles(int vectors) { return MOST_SUMS / vectors; }

constexpr Index INPUT_BYTES = 192 << 10; /* transformed input of images worked on together, in the second-level cache */
constexpr Index SUM_BYTES = 24 << 10;    /* sums that wait for their transform */

/* Images whose transformed input is made together, and rows of them whose sums are. */
struct Division {
  Index images;
  int rows;

  template <class Number> static Division of(Index images, int height, int y_height, RowTiles tiles, int inputs) {
    const Index image_bytes = Index{height} * tiles.points() * inputs * sizeof(Number);
    const Index fitting = INPUT_BYTES / image_bytes, together = fitting < 1 ? 1 : fitting < images ? fitting : images;
    const Index row_bytes = together * tiles.points() * 16 * MOST_VECTORS * sizeof(float);
    const Index rows = SUM_BYTES / row_bytes;
    return {together, static_cast<int>(rows < 1 ? 1 : rows < y_height ? rows : y_height)};
  }
  Index sums(RowTiles tiles) const { return images * rows * tiles.points() * 16 * MOST_VECTORS; }
};

/* Numbers of scratch for `convolution`: the transformed input of some images, and sums. */
template <class Number>
Index convolution_scratch(Index images, int height, int width, int inputs, int kernel, int padding) {
  const RowTiles tiles(width + 2 * padding - kernel + 1, kernel);
  const auto division = Division::of<Number>(images, height, height + 2 * padding - kernel + 1, tiles, inputs);
  return division.images * height * tiles.points() * inputs +
         division.sums(tiles) * Index{sizeof(float) / sizeof(Number)} + 64 / Index{sizeof(Number)};
}

/* --- input transform ---------------------------------------------------------------------------------------------- */

/* A row of an image -> out[point]: (channel / 16, ..., tile, 16), a point's parts of 16 channels `apart`. */
template <class Number, int Kernel, bool Masked>
INLINE void transform_input_row(PixelRow<Masked> row, int padding, RowTiles tiles, Number *const *out,
                                const Index *apart) {
  for (int c = 0; c < row.channels; c += 16) {
    Floats points[TRANSFORM_POINTS];
    Number *to[TRANSFORM_POINTS];
    unrolled<TRANSFORM_POINTS>([&](auto p) INLINE_LAMBDA { to[p] = out[p] + c / 16 * apart[p]; });
    TilePixels<Kernel, Masked> pixels(row.from_channel(c), padding);
    Index at = 0;
    for (int tile = 0; tile < tiles.full; tile++, at += 16) {
      pixels.template transform_next<TRANSFORM_POINTS>(points);
      unrolled<TRANSFORM_POINTS>([&](auto p) INLINE_LAMBDA { Products<Number>::store(to[p] + at, points[p]); });
    }
    with_last_tile<Kernel>(tiles.last, [&](auto last) INLINE_LAMBDA {
      pixels.template transform_next<last>(points);
      unrolled<last>([&](auto p) INLINE_LAMBDA { Products<Number>::store(to[p] + at, points[p]); });
    });
  }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* One point's sums of neighbouring tiles, over rows of the kernel and input channels: (tile, vector, 16).
 * x: the first tile's values in the first row of the kernel, (tile, 16), rows x_row and parts of 16 channels x_part
 * apart, so many parts; filters: (row, channel / depth, 16, depth), vectors of outputs filters_apart. */
template <class Number>
using TileFunction = void (*)(const Number *x, Index x_row, Index x_part, const Number *filters, Index filters_apart,
                              int rows, int parts, float *sums);

template <class Number, int Vectors, int Tiles>
void multiply_tiles(const Number *x, Index x_row, Index x_part, const Number *filters, Index filters_apart, int rows,
                    int parts, float *sums) {
  using Product = Products<Number>;
  constexpr int depth = Product::depth;
  Floats total[Tiles * Vectors] = {};
  for (int row = 0; row < rows; row++, x += x_row) {
    const Number *part = x;
    for (int p = 0; p < parts; p++, part += x_part)
      for (const Number *from = part, *end = part + 16; from < end; from += depth, filters += 16 * depth) {
        typename Product::Vector vectors[Vectors];
        unrolled<Vectors>([&](auto v) INLINE_LAMBDA { vectors[v] = Product::load(filters + v * filters_apart); });
        unrolled<Tiles * Vectors>([&](auto i) INLINE_LAMBDA {
          total[i] = Product::dot(total[i], vectors[i % Vectors], from + 16 * (i / Vectors));
        });
      }
  }
  unrolled<Tiles * Vectors>([&](auto i) INLINE_LAMBDA { store(sums + 16 * i, total[i]); });
}

/* multiply_tiles for every number of tiles. */
template <class Number, int Vectors> struct TileFunctions {
  static constexpr int most = most_tiles(Vectors);
  template <int... I>
  static constexpr std::array<TileFunction<Number>, most> all(std::integer_sequence<int, I...>) {
    return {multiply_tiles<Number, Vectors, I + 1>...};
  }
  static constexpr std::array<TileFunction<Number>, most> table = all(std::make_integer_sequence<int, most>{});
};

/* --- output transform --------------------------------------------------------------------------------------------- */

/* Sums of a row of tiles, 16 outputs, the points' arrays sums[point] with tiles `apart` -> a row of pixels. */
template <int Kernel>
INLINE void transform_output_row(const float *const *sums, Index apart, RowTiles tiles, Floats bias, Floats least,
                                 bfloat16 *y, Index channels) {
  Index at = 0;
  const auto tile = [&](auto points) INLINE_LAMBDA {
    constexpr int outputs = outputs_of_tile(points, Kernel);
    Floats s[points], out[outputs];
    unrolled<points>([&](auto p) INLINE_LAMBDA { s[p] = load(sums[p] + at); });
    transform_output<points, outputs>(s, out);
    for (int j = 0; j < outputs; j++, y += channels) store(y, larger_of(add(out[j], bias), least));
    at += apart;
  };
  for (int full = 0; full < tiles.full; full++) tile(std::integral_constant<int, TRANSFORM_POINTS>{});
  with_last_tile<Kernel>(tiles.last, tile);
}

/* --- the convolution ---------------------------------------------------------------------------------------------- */

/* Of a few images, so many of whose rows are done together: their transformed input, one point's values (channel / 16,
 * row, image, tile, 16), then for each 16 or 32 outputs the products of some rows, and their transform. Tiles of all
 * these images and rows are neighbours in memory, so that any number of them can be multiplied at once. */
template <class Number, int Kernel, bool Masked> struct Convolution {
  int height, width, inputs, outputs, padding;
  bool relu;
  const float *bias;
  int y_height = height + 2 * padding - Kernel + 1, y_width = width + 2 * padding - Kernel + 1;
  RowTiles tiles{y_width, Kernel};

  void transform_inputs(const bfloat16 *x, const bfloat16 *mask, Index images, Number *const *values) const {
    const Index x_row = Index{width} * inputs;
    Index part[TRANSFORM_POINTS];
    for (int p = 0; p < TRANSFORM_POINTS; p++) part[p] = height * images * tiles.with_point(p) * 16;
    for (Index n = 0; n < images; n++)
      for (int row = 0; row < height; row++) {
        const Index at = (n * height + row) * x_row;
        Number *to[TRANSFORM_POINTS];
        for (int p = 0; p < TRANSFORM_POINTS; p++) to[p] = values[p] + (row * images + n) * tiles.with_point(p) * 16;
        transform_input_row<Number, Kernel, Masked>({x + at, Masked ? mask + at : nullptr, width, inputs}, padding,
                                                    tiles, to, part);
      }
  }

  /* Rows h ... h + rows - 1, for which the kernel's rows first ... end - 1 lie on the image. */
  template <int Vectors>
  INLINE void multiply_rows(const Number *const *values, const Number *filters, Index images, int h, int rows,
                            int first, int end, float *const *sums) const {
    using Functions = TileFunctions<Number, Vectors>;
    const Index filter_row = Index{inputs} * 16, filter_point = Kernel * filter_row;
    for (int p = 0; p < TRANSFORM_POINTS; p++) {
      const Index row_tiles = images * tiles.with_point(p), all = rows * row_tiles, x_row = row_tiles * 16;
      in_equal_parts(all, Functions::most, [&](Index tile, Index here) {
        Functions::table[here - 1](values[p] + (h + first - padding) * x_row + tile * 16, x_row, height * x_row,
                                   filters + p * filter_point + first * filter_row, TRANSFORM_POINTS * filter_point,
                                   end - first, inputs / 16, sums[p] + tile * 16 * Vectors);
      });
    }
  }

  template <int Vectors>
  void outputs_from(int c, const Number *const *values, const Number *filters, bfloat16 *y, Index images,
                    int rows_together, float *sums) const {
    const Floats least = lower_bound(relu);
    float *point_sums[TRANSFORM_POINTS];
    for (int h = 0, rows; h < y_height; h += rows) {
      const int first = padding > h ? padding - h : 0, below = height + padding - h;
      const int end = below < Kernel ? below : Kernel;
      /* neighbouring rows on which as much of the kernel lies */
      rows = 1;
      if (first == 0 && end == Kernel) {
        const int whole = height + padding - Kernel - h + 1;
        rows = whole < rows_together ? whole : rows_together;
      }
      float *next = sums;
      for (int p = 0; p < TRANSFORM_POINTS; p++) {
        point_sums[p] = next;
        next += rows * images * tiles.with_point(p) * 16 * Vectors;
      }
      multiply_rows<Vectors>(values, filters, images, h, rows, first, end, point_sums);
      for (int row = 0; row < rows; row++)
        for (Index n = 0; n < images; n++)
          for (int v = 0; v < Vectors; v++) {
            const float *from[TRANSFORM_POINTS];
            for (int p = 0; p < TRANSFORM_POINTS; p++)
              from[p] = point_sums[p] + ((row * images + n) * tiles.with_point(p) * Vectors + v) * 16;
            transform_output_row<Kernel>(from, 16 * Vectors, tiles, bias ? load(bias + c + 16 * v) : zeros(), least,
                                         y + ((n * y_height + h + row) * y_width) * outputs + c + 16 * v, outputs);
          }
    }
  }

  void run(const bfloat16 *x, const bfloat16 *mask, const Number *filters, bfloat16 *y, Index images,
           Number *scratch) const {
    const auto division = Division::of<Number>(images, height, y_height, tiles, inputs);
    float *const sums = reinterpret_cast<float *>(scratch);
    Number *const inputs_from = scratch + division.sums(tiles) * Index{sizeof(float) / sizeof(Number)};
    for (Index n = 0, here; n < images; n += here) {
      here = images - n < division.images ? images - n : division.images;
      Number *values[TRANSFORM_POINTS], *next = inputs_from;
      for (int p = 0; p < TRANSFORM_POINTS; p++) {
        values[p] = next;
        next += height * here * tiles.with_point(p) * inputs;
      }
      const Index x_at = n * height * width * inputs;
      transform_inputs(x + x_at, Masked ? mask + x_at : nullptr, here, values);
      bfloat16 *const to = y + n * y_height * y_width * outputs;
      for (int c = 0; c < outputs;) {
        const Number *const filters_here = filters + Index{c} * Kernel * inputs * TRANSFORM_POINTS;
        if (MOST_VECTORS == 2 && outputs - c >= 32) {
          outputs_from<MOST_VECTORS>(c, values, filters_here, to, here, division.rows, sums);
          c += 32;
        } else {
          outputs_from<1>(c, values, filters_here, to, here, division.rows, sums);
          c += 16;
        }
      }
    }
  }
};

/* x (image, height, width, input), its values only where those of `mask` are above 0 -> y (image, height', width',
 * output), with bias (output) and relu; filters as transform_filters makes them. */
template <class Number>
void convolution(const bfloat16 *x, Optional<const bfloat16> mask, const Number *filters, Optional<const float> bias,
                 bfloat16 *y, Index images, int height, int width, int inputs, int outputs, int kernel, int padding,
                 bool relu, Number *scratch) {
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    const auto run = [&](auto masked) {
      const Convolution<Number, size, masked> of{height, width, inputs, outputs, padding, relu, bias.values};
      of.run(x, mask.values, filters, y, images, scratch);
    };
    mask.values ? run(std::true_type{}) : run(std::false_type{});
  });
}

/* --- filter transform --------------------------------------------------------------------------------------------- */

/* Numbers of each of the two that transform_filters writes. */
Index filter_numbers(int kernel, int inputs, int outputs) { return Index{kernel} * TRANSFORM_POINTS * inputs * outputs; }

/* weights (output, row, column, input) -> forward (output / 16, point, row, input / depth, 16, depth), and for the
 * gradient of the input, turned by half a circle, backward (input / 16, point, row, output / depth, 16, depth). */
template <class Number, int Kernel>
void transform_filters_of(const float *weights, Number *forward, Number *backward, int inputs, int outputs) {
  using Product = Products<Number>;
  constexpr int depth = Product::depth;
  for (int o = 0; o < outputs; o += 2)
    for (int row = 0; row < Kernel; row++)
      for (int c = 0; c < inputs; c += 16) {
        Floats points[2][TRANSFORM_POINTS], turned_points[2][TRANSFORM_POINTS];
        for (int i = 0; i < 2; i++) {
          Floats taps[Kernel], turned[Kernel];
          for (int k = 0; k < Kernel; k++)
            turned[Kernel - 1 - k] = taps[k] =
                load(weights + ((Index{o + i} * Kernel + row) * Kernel + k) * inputs + c);
          transform_filter<Kernel, true>(taps, points[i]);
          transform_filter<Kernel, false>(turned, turned_points[i]); /* not fused, as up to version 0.4.1: same bits */
        }
        for (int p = 0; p < TRANSFORM_POINTS; p++) {
          const Index ahead = ((Index{o / 16} * TRANSFORM_POINTS + p) * Kernel + row) * inputs + c;
          const Index back = ((Index{c / 16} * TRANSFORM_POINTS + p) * Kernel + Kernel - 1 - row) * outputs + o;
          Product::store_two(backward + 16 * back, 16, turned_points[0][p], turned_points[1][p]);
          Product::scatter_two(forward + 16 * ahead + depth * (o % 16), 16 * depth, points[0][p], points[1][p]);
        }
      }
}

template <class Number>
void transform_filters(const float *weights, Number *forward, Number *backward, int inputs, int outputs, int kernel) {
  with_constant(KernelSizes{}, kernel,
                [&](auto size) { transform_filters_of<Number, size>(weights, forward, backward, inputs, outputs); });
}

} // namespace
