/* Gradient of a convolution's weights by tiles: for each of the kernel's taps, inputs . pixels times pixels . outputs.
 *
 * Both images become lines of pixels as in tile_convolution.h. The input's is cut into tiles of 16 channels and 32
 * pixels, transposed once; the gradient's into rows of two pixels of 16 outputs each, so that a tile holds 32 pixels,
 * beginning at any pixel with an even number. A tap shifts the gradient and not the input: rows of tiles then begin at
 * cache lines. Those that begin at odd pixels come from a second such line. Between rows and around the image the
 * gradient is 0, between rows the input is, too.
 *
 * Sums (16, 16) of up to five taps and outputs stay in tiles over a group of images: 6 loads for 5 dots, 48 of 80
 * cycles. Both lines of a group lie in the second-level cache, 1 MB at most with the channels of shapes.h and images of
 * 28 x 28, and each number of it comes from there once for five dots: 3 KB in 80 cycles. Dots of an image of 28 x 28,
 * 16
 * -> 16: 234 (220 if all pixels were); 14 x 14, 32 -> 32: 252 (220); 7 x 7, 64 -> 64: 288 (220).
 */
#pragma once
#include "tile_convolution.h"

namespace {
namespace by_tiles {

struct GradientLines {
  int pitch, steps; /* 32 pixels each, of an image */
  int front;        /* place of the first gradient: with so many 0 before, no tap goes below 0 */
  Index rows;       /* pairs of gradients of an image, with those around it */
  Index group;      /* images whose lines are made together: the more, the seldomer are sums fetched from memory */

  GradientLines(int height, int width, int kernel, int padding)
      : pitch(width + padding),
        steps((height * pitch + 31) / 32),
        front((kernel - 1 - padding) * (pitch + 1)),
        rows((32 * steps + (kernel - 1) * (pitch + 1)) / 2 + 1),
        group((31 + steps) / steps) {}
  Index x_line(int inputs) const { return Index{32} * steps * inputs; }
  Index dy_line(int outputs) const { return (2 * rows + 1) * outputs; }
  Index x_tiles(int inputs) const { return group * x_line(inputs); }
  Index dy_pairs(int outputs) const { return 4 * group * rows * outputs; } /* two lines */
};

/* Numbers of scratch for `weight_gradient`: a line of each, and what becomes of those of a group. */
Index weight_gradient_scratch(int height, int width, int inputs, int outputs, int kernel, int padding) {
  const GradientLines lines(height, width, kernel, padding);
  return lines.x_line(inputs) + lines.x_tiles(inputs) + lines.dy_pairs(outputs) + lines.dy_line(outputs);
}

/* Numbers of the sums: (input / 16, output / 16, row, column, 16 inputs, 16 outputs). */
Index weight_gradient_sums(int kernel, int inputs, int outputs) { return Index{kernel} * kernel * inputs * outputs; }

/* Of a line (pixel, channel), 16 channels -> tiles (step, 16 channels, 32 pixels). */
INLINE void make_input_tiles(const bfloat16 *line, Index channels, int steps, bfloat16 *tiles) {
  for (int step = 0; step < steps; step++, tiles += TILE_NUMBERS) {
    alignas(64) std::uint32_t pairs[16][16];
    for (int i = 0; i < 16; i++, line += 2 * channels) _mm512_store_si512(pairs[i], paired(line, line + channels));
    transpose_16(pairs, sizeof pairs[0], tiles);
  }
}

/* Of a line (pixel, channel), 16 channels -> rows of pixels 0 and 1, 2 and 3 ..., and in `odd` of 1 and 2, 3 and 4 ...;
 * the sum over all pixels is returned. */
INLINE Floats make_gradient_pairs(const bfloat16 *line, Index channels, Index rows, bfloat16 *even, bfloat16 *odd) {
  Floats first = zeros(), second = zeros();
  for (Index row = 0; row < rows; row++, even += TILE_ROW, odd += TILE_ROW, line += 2 * channels) {
    const __m512i pairs = paired(line, line + channels);
    _mm512_storeu_si512(even, pairs), _mm512_storeu_si512(odd, paired(line + channels, line + 2 * channels));
    first = add(first, _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)));
    second = add(second, _mm512_castsi512_ps(_mm512_and_si512(pairs, broadcast(std::int32_t(0xffff0000)))));
  }
  return add(first, second);
}

/* Adds to the sums of neighbouring taps. x: tiles (image, step); dy: for each tap, its first tile's pairs, those of the
 * next image so many numbers further. */
template <class Tiles>
using TileSums = void (*)(Tiles &tiles, const bfloat16 *x, const bfloat16 *const *dy, Index images, Index dy_image,
                          int steps, float *sums);

constexpr int MOST_TAPS = 5; /* the other three tiles are of x and of dy */

template <class Tiles, int Taps>
void add_taps(Tiles &tiles, const bfloat16 *x, const bfloat16 *const *dy, Index images, Index dy_image, int steps,
              float *sums) {
  const bfloat16 *from[Taps];
  for (int t = 0; t < Taps; t++) from[t] = dy[t];
  unrolled<Taps>([&](auto t) INLINE_LAMBDA { tiles.template load<t>(sums + 256 * t, 64); });
  for (Index n = 0; n < images; n++)
    for (Index at = n * dy_image, end = at + steps * TILE_NUMBERS; at < end; at += TILE_NUMBERS, x += TILE_NUMBERS) {
      tiles.template load<MOST_TAPS>(x, 64);
      unrolled<Taps>([&](auto t) INLINE_LAMBDA {
        constexpr int b = MOST_TAPS + 1 + t % 2;
        tiles.template load<b>(from[t] + at, 64);
        tiles.template dot<t, MOST_TAPS, b>();
      });
    }
  unrolled<Taps>([&](auto t) INLINE_LAMBDA { tiles.template store<t>(sums + 256 * t); });
}

/* As weight_gradient.h's, but for the order of the sums. */
template <class Tiles>
void weight_gradient(const bfloat16 *x, const bfloat16 *dy, Optional<const bfloat16> mask, float *sums,
                     Optional<float> bias_sums, Index images, int height, int width, int inputs, int outputs,
                     int kernel, int padding, bfloat16 *scratch) {
  static constexpr TileSums<Tiles> FUNCTIONS[] = {add_taps<Tiles, 1>, add_taps<Tiles, 2>, add_taps<Tiles, 3>,
                                                  add_taps<Tiles, 4>, add_taps<Tiles, 5>};
  const GradientLines lines(height, width, kernel, padding);
  const int y_height = height + 2 * padding - kernel + 1, y_width = width + 2 * padding - kernel + 1;
  const Index x_row = Index{width} * inputs, y_row = Index{y_width} * outputs, pitch = lines.pitch;
  const Index dy_image = lines.rows * TILE_ROW, x_image = lines.steps * TILE_NUMBERS;
  bfloat16 *const x_tiles = scratch, *const dy_pairs = x_tiles + lines.x_tiles(inputs);
  bfloat16 *const x_line = dy_pairs + lines.dy_pairs(outputs), *const dy_line = x_line + lines.x_line(inputs);
  const auto pairs_of = [&](int o, int odd) { return dy_pairs + (o / 16 * 2 + odd) * lines.group * dy_image; };
  std::memset(static_cast<void *>(x_line), 0, sizeof(bfloat16) * lines.x_line(inputs));
  std::memset(static_cast<void *>(dy_line), 0, sizeof(bfloat16) * lines.dy_line(outputs));
  Tiles tiles;
  for (Index n = 0; n < images; n += lines.group) {
    const Index count = std::min(images - n, lines.group);
    for (Index i = 0; i < count; i++) {
      const Index y_at = (n + i) * y_height * y_row;
      copy_rows(x + (n + i) * height * x_row, nullptr, height, x_row, x_line, pitch * inputs);
      copy_rows(dy + y_at, mask.values ? mask.values + y_at : nullptr, y_height, y_row,
                dy_line + Index{lines.front} * outputs, pitch * outputs);
      for (int c = 0; c < inputs; c += 16)
        make_input_tiles(x_line + c, inputs, lines.steps, x_tiles + (c / 16 * lines.group + i) * x_image);
      for (int o = 0; o < outputs; o += 16) {
        const Floats sum = make_gradient_pairs(dy_line + o, outputs, lines.rows, pairs_of(o, 0) + i * dy_image,
                                               pairs_of(o, 1) + i * dy_image);
        if (bias_sums.values) store(bias_sums.values + o, add(load(bias_sums.values + o), sum));
      }
    }
    const int taps = kernel * kernel * (outputs / 16);
    for (int c = 0; c < inputs; c += 16)
      in_equal_parts(taps, MOST_TAPS, [&](int tap, int together) {
        const bfloat16 *from[MOST_TAPS];
        for (int t = 0; t < together; t++) { /* where the gradient of the input's first pixel's window is */
          const int row = (tap + t) / kernel % kernel, column = (tap + t) % kernel,
                    o = (tap + t) / kernel / kernel * 16;
          const int place = lines.front - (row - padding) * lines.pitch - (column - padding);
          from[t] = pairs_of(o, place % 2) + place / 2 * TILE_ROW;
        }
        FUNCTIONS[together - 1](tiles, x_tiles + c / 16 * lines.group * x_image, from, count, dy_image, lines.steps,
                                sums + (Index{c / 16} * taps + tap) * 256);
      });
  }
}

/* sums -> gradient (output, row, column, input) */
void transform_weight_gradient(const float *sums, float *gradient, int inputs, int outputs, int kernel) {
  const Index output = Index{kernel} * kernel * inputs;
  for (int c = 0; c < inputs; c += 16)
    for (int o = 0; o < outputs; o += 16)
      for (int tap = 0; tap < kernel * kernel; tap++, sums += 256) {
        float by_output[16][16], *to = gradient + o * output + Index{tap} * inputs + c;
        transpose_16(sums, 64, by_output);
        for (int i = 0; i < 16; i++) store(to + i * output, load(by_output[i]));
      }
}

} // namespace by_tiles
} // namespace
