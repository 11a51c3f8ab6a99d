/* Convolution with stride 1, and the transform of its filters. The gradient of its input is a convolution as well. */
#pragma once
#include <array>
#include <utility>
#include "winograd.h"

namespace {

/* What stands below a result: 0 with relu, nothing without. */
INLINE Floats lower_bound(bool relu) { return broadcast(relu ? 0.0f : -__builtin_inff()); }

/* --- input transform ---------------------------------------------------------------------------------------------- */

/* A row of an image -> (tile, point, channel). */
template <class Number, int Kernel, bool Masked>
INLINE void transform_input_row(PixelRow<Masked> row, int padding, RowTiles tiles, Number *out) {
  for (int c = 0; c < row.channels; c += 16) {
    Floats points[TRANSFORM_POINTS];
    TilePixels<Kernel, Masked> pixels(row.from_channel(c), padding);
    Number *to = out + c;
    for (int tile = 0; tile < tiles.full; tile++) {
      pixels.template transform_next<TRANSFORM_POINTS>(points);
      for (int p = 0; p < TRANSFORM_POINTS; p++, to += row.channels) Products<Number>::store(to, points[p]);
    }
    with_last_tile<Kernel>(tiles.last, [&](auto last) INLINE_LAMBDA {
      pixels.template transform_next<last>(points);
      for (int p = 0; p < last; p++, to += row.channels) Products<Number>::store(to, points[p]);
    });
  }
}

/* --- products and output transform -------------------------------------------------------------------------------- */

/* Neighbouring tiles whose sums live in registers together */
constexpr int MOST_FULL_TILES = MOST_SUMS / TRANSFORM_POINTS;
static_assert(MOST_FULL_TILES > 0);

/* Where the results of neighbouring tiles go: 16 channels of a row of one image, and of a second one. */
struct TileOutput {
  bfloat16 *first, *second;
  Index channels; /* from one pixel to the next */
  int kernel;
  Floats bias, lower_bound;

  template <int Points> INLINE void put(const Floats *sums, bfloat16 *to) const {
    with_constant(KernelSizes{}, kernel, [&](auto size) INLINE_LAMBDA {
      if constexpr (Points >= size) {
        constexpr int outputs = outputs_of_tile(Points, size);
        Floats out[outputs];
        transform_output<Points, outputs>(sums, out);
        for (int j = 0; j < outputs; j++) store(to + j * channels, larger_of(add(out[j], bias), lower_bound));
      }
    });
  }
};

/* The products of one point of neighbouring tiles, an array's elements written out so that it lives in registers. */
template <int Channels, int Point, class Number, class Vector, int... Tile>
INLINE void add_products(Floats *sums, Vector filter, const Number *from, std::integer_sequence<int, Tile...>) {
  ((sums[TRANSFORM_POINTS * Tile + Point] = Products<Number>::dot(sums[TRANSFORM_POINTS * Tile + Point], filter,
                                                                  from + (TRANSFORM_POINTS * Tile + Point) * Channels)),
   ...);
}

/* Neighbouring tiles of a row, so many full ones and perhaps one of Last points, of one image or of two: 16 outputs.
 * x: the first tile's values (tile, point, channel) in the first row of the kernel, rows `pitch` apart, the second
 * image's `apart`; filters: (row, channel / depth, point, 16, depth). */
template <class Number>
using TileFunction = void (*)(const Number *x, Index apart, Index pitch, const Number *filters, int rows,
                              const TileOutput &to);

template <class Number, int Channels, int Images, int Full, int Last>
void multiply_tiles(const Number *x, Index apart, Index pitch, const Number *filters, int rows, const TileOutput &to) {
  using Product = Products<Number>;
  constexpr int depth = Product::depth;
  Floats sums[Images][TRANSFORM_POINTS * Full + Last] = {};
  for (int row = 0; row < rows; row++, x += pitch)
    for (const Number *first = x, *second = x + apart, *end = x + Channels; first < end;
         first += depth, second += depth, filters += 16 * depth * TRANSFORM_POINTS)
      unrolled<Full ? TRANSFORM_POINTS : Last>([&](auto p) INLINE_LAMBDA {
        const auto filter = Product::load(filters + 16 * depth * p);
        constexpr auto tiles = std::make_integer_sequence<int, Full + (Last > p)>{};
        add_products<Channels, p>(sums[0], filter, first, tiles);
        if constexpr (Images == 2) add_products<Channels, p>(sums[1], filter, second, tiles);
      });
  const TileOutput y = to; /* a copy, which storing results cannot change: no need to fetch it again */
  const Index step = outputs_of_tile(TRANSFORM_POINTS, y.kernel) * y.channels;
  unrolled<Images>([&](auto image) INLINE_LAMBDA {
    bfloat16 *pixel = image ? y.second : y.first;
    unrolled<Full>([&](auto tile) INLINE_LAMBDA {
      y.put<TRANSFORM_POINTS>(sums[image] + TRANSFORM_POINTS * tile, pixel);
      pixel += step;
    });
    if constexpr (Last > 0) y.put<Last>(sums[image] + TRANSFORM_POINTS * Full, pixel);
  });
}

/* multiply_tiles for all channels and numbers of tiles; nullptr where there are no tiles, or too many sums. */
template <class Number> struct TileFunctions {
  static constexpr std::array<int, 4> LAST{0, 3, 4, 5}; /* points of a last tile */
  static constexpr int size = Channels::size * 2 * (MOST_FULL_TILES + 1) * int{LAST.size()};

  static constexpr int index(int channels_position, int images, int full, int last_position) {
    return ((channels_position * 2 + images - 1) * (MOST_FULL_TILES + 1) + full) * int{LAST.size()} + last_position;
  }
  template <int I> static constexpr TileFunction<Number> entry() {
    constexpr int last = LAST[I % LAST.size()], full = I / LAST.size() % (MOST_FULL_TILES + 1);
    constexpr int rest = I / LAST.size() / (MOST_FULL_TILES + 1), images = 1 + rest % 2;
    constexpr int sums = images * (TRANSFORM_POINTS * full + last);
    if constexpr (sums > 0 && sums <= MOST_SUMS)
      return multiply_tiles<Number, Channels::values[rest / 2], images, full, last>;
    else
      return nullptr;
  }
  template <int... I> static constexpr std::array<TileFunction<Number>, size> all(std::integer_sequence<int, I...>) {
    return {entry<I>()...};
  }
  static constexpr std::array<TileFunction<Number>, size> table = all(std::make_integer_sequence<int, size>{});

  static TileFunction<Number> of(int channels, int images, int full, int last) {
    return table[index(position<Channels>(channels), images, full, last ? last - LAST[1] + 1 : 0)];
  }
};

/* --- the convolution ---------------------------------------------------------------------------------------------- */

/* Numbers of scratch for `convolution`: the transformed input of two images. */
Index convolution_scratch(int height, int width, int inputs, int kernel, int padding) {
  return Index{2} * height * RowTiles(width + 2 * padding - kernel + 1, kernel).points() * inputs;
}

template <class Number, int Kernel, bool Masked>
void convolution_of(const bfloat16 *x, const bfloat16 *mask, const Number *filters, const float *bias, bfloat16 *y,
                    Index images, int height, int width, int inputs, int outputs, int padding, bool relu,
                    Number *scratch) {
  const int y_height = height + 2 * padding - Kernel + 1, y_width = width + 2 * padding - Kernel + 1;
  const RowTiles tiles(y_width, Kernel);
  /* A row is done in parts of about as many full tiles; its last tile goes with the last of them if it has room. */
  const auto functions = TileFunctions<Number>::of;
  const int full_parts = (tiles.full + MOST_FULL_TILES - 1) / MOST_FULL_TILES;
  const bool last_fits = full_parts > 0 && functions(inputs, 1, tiles.full / full_parts, tiles.last);
  const int parts = full_parts + (tiles.last && !last_fits);
  const Index pitch = Index{tiles.points()} * inputs, x_row = Index{width} * inputs;
  const Index x_image = height * x_row, y_image = Index{y_height} * y_width * outputs;
  const bool in_pairs = parts == 1 && functions(inputs, 2, tiles.full, tiles.last);
  for (Index n = 0; n < images; n += 1 + in_pairs) {
    const int together = 1 + (in_pairs && n + 1 < images);
    for (int row = 0; row < together * height; row++) { /* the second image follows the first */
      const Index at = n * x_image + row * x_row;
      transform_input_row<Number, Kernel, Masked>({x + at, Masked ? mask + at : nullptr, width, inputs}, padding, tiles,
                                                  scratch + row * pitch);
    }
    for (int c = 0; c < outputs; c += 16) {
      const Number *filters_here = filters + Index{c} * Kernel * inputs * TRANSFORM_POINTS;
      TileOutput to{nullptr, nullptr, outputs, Kernel, bias ? load(bias + c) : zeros(), lower_bound(relu)};
      for (int part = 0, tile = 0; part < parts; part++) {
        const int full = part < full_parts ? (tiles.full - tile + full_parts - part - 1) / (full_parts - part) : 0;
        const auto multiply = functions(inputs, together, full, part == parts - 1 ? tiles.last : 0);
        for (int h = 0; h < y_height; h++) { /* only rows of the kernel that lie on the image */
          const int first = padding > h ? padding - h : 0;
          const int end = height + padding - h < Kernel ? height + padding - h : Kernel;
          to.first =
              y + n * y_image + (Index{h} * y_width + tile * outputs_of_tile(TRANSFORM_POINTS, Kernel)) * outputs + c;
          to.second = to.first + y_image;
          multiply(scratch + (h + first - padding) * pitch + Index{tile} * TRANSFORM_POINTS * inputs, height * pitch,
                   pitch, filters_here + Index{16} * first * inputs * TRANSFORM_POINTS, end - first, to);
        }
        tile += full;
      }
    }
  }
}

/* x (image, height, width, input), its values only where those of `mask` are above 0 -> y (image, height', width',
 * output), with bias (output) and relu; filters as transform_filters makes them. */
template <class Number>
void convolution(const bfloat16 *x, Optional<const bfloat16> mask, const Number *filters, Optional<const float> bias,
                 bfloat16 *y, Index images, int height, int width, int inputs, int outputs, int kernel, int padding,
                 bool relu, Number *scratch) {
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    const auto of = mask.values ? convolution_of<Number, size, true> : convolution_of<Number, size, false>;
    of(x, mask.values, filters, bias.values, y, images, height, width, inputs, outputs, padding, relu, scratch);
  });
}

/* --- filter transform --------------------------------------------------------------------------------------------- */

/* Numbers of each of the two that transform_filters writes. */
Index filter_numbers(int kernel, int inputs, int outputs) { return Index{kernel} * TRANSFORM_POINTS * inputs * outputs; }

/* weights (output, row, column, input) -> forward (output / 16, row, input / depth, point, 16, depth), and for the
 * gradient of the input, turned by half a circle, backward (input / 16, row, output / depth, point, 16, depth). */
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
        const Index ahead = (Index{o / 16} * Kernel + row) * inputs + c;
        const Index back = (Index{c / 16} * Kernel + Kernel - 1 - row) * outputs + o;
        for (int p = 0; p < TRANSFORM_POINTS; p++) {
          Product::store_two(backward + 16 * (TRANSFORM_POINTS * back + depth * p), 16 * TRANSFORM_POINTS,
                             turned_points[0][p], turned_points[1][p]);
          Product::scatter_two(forward + 16 * (TRANSFORM_POINTS * ahead + depth * p) + depth * (o % 16),
                               16 * depth * TRANSFORM_POINTS, points[0][p], points[1][p]);
        }
      }
}

template <class Number>
void transform_filters(const float *weights, Number *forward, Number *backward, int inputs, int outputs, int kernel) {
  with_constant(KernelSizes{}, kernel,
                [&](auto size) { transform_filters_of<Number, size>(weights, forward, backward, inputs, outputs); });
}

} // namespace
