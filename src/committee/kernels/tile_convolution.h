/* Convolution with stride 1 by tiles, directly: without transforms, and without the matrix of windows.
 *
 * An image becomes a line of pixels: rows after one another with `padding` pixels of 0 between them, which end one row
 * and begin the next. The pixels under a row of the kernel then lie side by side, kernel * channels numbers, so a tile
 * with its rows one pixel apart holds 32 numbers of 16 neighbouring windows. It is multiplied with as many numbers of
 * 16 filters. The last of these steps goes beyond the window where that is no multiple of 32 numbers; there the filters
 * are 0. Of the 16 results, those between two rows are left out.
 *
 * What it costs, in dots of 16 cycles (the image's pixels times filters would make the number in brackets):
 *
 *   image     channels   kernel   lines, in tiles   steps of a row   dots of an image
 *   28 x 28   16 -> 16   3        51 (49)           2 (1.5)          306 (220)
 *   14 x 14   32 -> 32   3        14 (12.3)         3                252 (220)
 *   7 x 7     64 -> 64   3        4 (3.1)           6                288 (220)
 *
 * With 32 outputs four tiles of sums take four loads for four dots, with 16 outputs five: 32 and 40 of 64 cycles (up to
 * 56 with 16 channels, where every second row lies on two cache lines). A line is 26 to 30 KB and stays in the
 * first-level cache; of filters, 1 or 2 KB come from the second level in 64 cycles. The results
 * of four tiles, which are ready after the last dot, are written while the dots of the next four run.
 */
#pragma once
#include <algorithm>
#include "tiles.h"

namespace {
namespace by_tiles {

/* An image as a line. Result (h, w) is made of the pixels from place h * pitch + w on. A padding is below `kernel`. */
struct Line {
  int pitch, y_height, y_width, tiles;
  Index pixels; /* with those that the last tile reaches */

  Line(int height, int width, int kernel, int padding)
      : pitch(width + padding),
        y_height(height + 2 * padding - kernel + 1),
        y_width(width + 2 * padding - kernel + 1),
        tiles((pitch * (y_height - 1) + y_width + 15) / 16),
        pixels(std::max(16 * tiles + pitch * (kernel - 1) + kernel, padding + pitch * (height + padding))) {}
};

/* Steps of 32 numbers in a row of the kernel. */
int steps_of_row(int kernel, int channels) { return (kernel * channels + 31) / 32; }

/* Numbers of scratch for `convolution`: a line. */
Index convolution_scratch(Index /* images */, int height, int width, int inputs, int kernel, int padding) {
  return Line(height, width, kernel, padding).pixels * inputs;
}

/* Sums (tile of pixels, tile of outputs) of neighbouring tiles. x: the first window, pixels and rows of the line so
 * many bytes apart; filters (row, step, 16, 16, 2), the second tile's `apart` numbers further. */
template <class Tiles>
using TileProducts = void (*)(Tiles &tiles, const bfloat16 *x, Index pixel, Index row, const bfloat16 *filters,
                              Index apart, int rows, int steps, float *sums);

template <class Tiles, int Pixels, int Outputs>
void multiply(Tiles &tiles, const bfloat16 *x, Index pixel, Index row, const bfloat16 *filters, Index apart, int rows,
              int steps, float *sums) {
  static_assert(Pixels * Outputs <= 4); /* the other four are of x and of filters */
  unrolled<Pixels * Outputs>([&](auto i) INLINE_LAMBDA { tiles.template zero<i>(); });
  const char *window = reinterpret_cast<const char *>(x);
  for (int r = 0; r < rows; r++, window += row) {
    const char *from = window;
    for (int step = 0; step < steps; step++, from += 64, filters += TILE_NUMBERS) {
      unrolled<Outputs>([&](auto o) INLINE_LAMBDA { tiles.template load<8 - Outputs + o>(filters + o * apart, 64); });
      unrolled<Pixels>([&](auto p) INLINE_LAMBDA {
        constexpr int a = 4 + p % (4 - Outputs);
        tiles.template load<a>(from + 16 * p * pixel, pixel);
        unrolled<Outputs>([&](auto o) INLINE_LAMBDA { tiles.template dot<p * Outputs + o, a, 8 - Outputs + o>(); });
      });
    }
  }
  unrolled<Pixels * Outputs>([&](auto i) INLINE_LAMBDA { tiles.template store<i>(sums + 256 * i); });
}

/* 16 results of 16 outputs, from `place` of the line on, as pixels of y (pixel, output). */
INLINE void put(const float *sums, int place, const Line &line, Floats bias, Floats least, bfloat16 *y, Index outputs) {
  int h = place / line.pitch;
  for (int begin = h * line.pitch - place; begin < 16 && h < line.y_height; begin += line.pitch, h++) { /* row h */
    bfloat16 *const row = y + (Index{h} * line.y_width - begin) * outputs;
    for (int i = std::max(begin, 0), end = std::min(begin + line.y_width, 16); i < end; i++)
      store(row + i * outputs, larger_of(add(load(sums + 16 * i), bias), least));
  }
}

/* Neighbouring tiles of results: so many of pixels, from `tile` of the line on, times so many of outputs. */
struct Block {
  int tile, pixels, outputs;
  bfloat16 *y; /* the first output of the image's first pixel */
  const float *bias;
};

INLINE void put(const Block &block, const float *sums, const Line &line, Floats least, Index outputs) {
  for (int o = 0; o < block.outputs; o++) {
    const Floats bias = block.bias ? load(block.bias + 16 * o) : zeros();
    for (int p = 0; p < block.pixels; p++)
      put(sums + 256 * (p * block.outputs + o), 16 * (block.tile + p), line, bias, least, block.y + 16 * o, outputs);
  }
}

/* As convolution.h's; filters as transform_filters makes them. */
template <class Tiles>
void convolution(const bfloat16 *x, Optional<const bfloat16> mask, const bfloat16 *filters, Optional<const float> bias,
                 bfloat16 *y, Index images, int height, int width, int inputs, int outputs, int kernel, int padding,
                 bool relu, bfloat16 *scratch) {
  static constexpr TileProducts<Tiles> FUNCTIONS[2][4] = {
      {multiply<Tiles, 1, 1>, multiply<Tiles, 2, 1>, multiply<Tiles, 3, 1>, multiply<Tiles, 4, 1>},
      {multiply<Tiles, 1, 2>, multiply<Tiles, 2, 2>}};
  const Line line(height, width, kernel, padding);
  const int steps = steps_of_row(kernel, inputs);
  const Index x_row = Index{width} * inputs, x_image = height * x_row;
  const Index y_image = Index{line.y_height} * line.y_width * outputs, pitch = Index{line.pitch} * inputs;
  const Index filters_of_16 = kernel * steps * TILE_NUMBERS, number = sizeof(bfloat16);
  const Floats least = lower_bound(relu);
  alignas(64) float sums[2][4 * 256]; /* of the block at work, and of the one before, which is to be written */
  Block before{};
  int turn = 0;
  Tiles tiles;
  std::memset(static_cast<void *>(scratch), 0, number * line.pixels * inputs);
  for (Index n = 0; n < images; n++) {
    copy_rows(x + n * x_image, mask.values ? mask.values + n * x_image : nullptr, height, x_row,
              scratch + padding * (pitch + inputs), pitch);
    for (int c = 0, together; c < outputs; c += 16 * together) {
      together = outputs - c >= 32 ? 2 : 1;
      in_equal_parts(line.tiles, 4 / together, [&](int tile, int count) {
        FUNCTIONS[together - 1][count - 1](tiles, scratch + Index{16} * tile * inputs, number * inputs, number * pitch,
                                           filters + c / 16 * filters_of_16, filters_of_16, kernel, steps, sums[turn]);
        put(before, sums[1 - turn], line, least, outputs);
        before = {tile, count, together, y + n * y_image + c, bias.values ? bias.values + c : nullptr};
        turn = 1 - turn;
      });
    }
  }
  put(before, sums[1 - turn], line, least, outputs);
}

/* --- filters ------------------------------------------------------------------------------------------------------ */

/* Numbers of each of the two that transform_filters writes. */
Index filter_numbers(int kernel, int inputs, int outputs) {
  return kernel * TILE_NUMBERS *
         std::max(outputs / 16 * steps_of_row(kernel, inputs), inputs / 16 * steps_of_row(kernel, outputs));
}

/* weights (output, row, column, input) -> forward (output / 16, row, step, 16, 16, 2): the numbers (column, input) of a
 * row, in pairs, of 16 outputs; and for the gradient of the input, turned by half a circle, backward (input / 16, row,
 * step, 16, 16, 2), of the numbers (column, output). */
void transform_filters(const float *weights, bfloat16 *forward, bfloat16 *backward, int inputs, int outputs,
                       int kernel) {
  constexpr int MOST = 5 * 128; /* numbers of a row of the kernel */
  const int row_numbers = kernel * inputs, steps = steps_of_row(kernel, inputs);
  for (int o = 0; o < outputs; o += 16)
    for (int row = 0; row < kernel; row++) {
      alignas(64) bfloat16 lines[16][MOST];
      for (int i = 0; i < 16; i++) {
        const float *from = weights + (Index{o + i} * kernel + row) * row_numbers;
        for (int v = 0; v < row_numbers; v += 16) store(lines[i] + v, load(from + v));
        if (row_numbers % 32) store(lines[i] + row_numbers, zeros());
      }
      for (int step = 0; step < steps; step++, forward += TILE_NUMBERS)
        transpose_16(lines[0] + 32 * step, sizeof lines[0], forward);
    }
  const int back_steps = steps_of_row(kernel, outputs);
  const auto pair_at = [&](int c, int row, int number) {
    return backward + Index{c / 16 * kernel + row} * back_steps * TILE_NUMBERS + number / 2 * TILE_ROW;
  };
  for (int c = 0; c < inputs; c += 16)
    for (int row = 0; row < kernel; row++) {
      for (int k = 0; k < kernel; k++)
        for (int o = 0; o < outputs; o += 2) {
          const float *from = weights + ((Index{o} * kernel + row) * kernel + k) * inputs + c;
          Products<bfloat16>::store_two(pair_at(c, kernel - 1 - row, (kernel - 1 - k) * outputs + o), 0, load(from),
                                        load(from + kernel * row_numbers));
        }
      for (int number = kernel * outputs; number < 32 * back_steps; number += 2)
        Products<bfloat16>::store_two(pair_at(c, row, number), 0, zeros(), zeros());
    }
}

} // namespace by_tiles
} // namespace
