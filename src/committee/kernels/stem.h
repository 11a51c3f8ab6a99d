/* The first convolution, of few input channels, in float32 from pixels, and the gradient of its weights. */
#pragma once
#include <cstring>
#include "convolution.h"

namespace {

/* (pixel - offset) / scale of one image in a frame of zeros */
void scaled_frame(const float *x, int height, int width, int channels, int padding, float offset, float scale,
                  float *out) {
  const Index row = Index{width} * channels, before = Index{padding} * channels, pitch = row + 2 * before;
  std::memset(out, 0, sizeof(float) * pitch * padding);
  out += pitch * padding;
  for (int h = 0; h < height; h++, x += row, out += pitch) {
    std::memset(out, 0, sizeof(float) * before);
    for (Index i = 0; i < row; i++) out[before + i] = (x[i] - offset) / scale;
    std::memset(out + before + row, 0, sizeof(float) * before);
  }
  std::memset(out, 0, sizeof(float) * pitch * padding);
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* Neighbouring pixels of 16 output channels; weights (tap, output) from the first of these channels on. */
template <int Inputs, int Pixels>
void multiply_pixels(const float *x, Index pitch, const float *weights, int kernel, Index outputs, Floats bias,
                     Floats lower_bound, bfloat16 *y) {
  Floats sums[Pixels];
  unrolled<Pixels>([&](auto i) INLINE_LAMBDA { sums[i] = bias; });
  for (int row = 0; row < kernel; row++, x += pitch)
    for (const float *from = x, *end = x + kernel * Inputs; from < end; from++, weights += outputs) {
      const Floats weight = load(weights);
      unrolled<Pixels>([&](auto i)
                           INLINE_LAMBDA { sums[i] = multiply_add(weight, broadcast(from[i * Inputs]), sums[i]); });
    }
  unrolled<Pixels>([&](auto i) INLINE_LAMBDA { store(y + i * outputs, larger_of(sums[i], lower_bound)); });
}

using PixelsFunction = void (*)(const float *x, Index pitch, const float *weights, int kernel, Index outputs,
                                Floats bias, Floats lower_bound, bfloat16 *y);
struct Pixels {
  int count;
  PixelsFunction multiply;
};

/* The function for as many of the pixels left as one takes. */
template <int Inputs> Pixels most_pixels(int left) {
  static constexpr Pixels widths[] = {{14, multiply_pixels<Inputs, 14>},
                                      {12, multiply_pixels<Inputs, 12>},
                                      {8, multiply_pixels<Inputs, 8>},
                                      {4, multiply_pixels<Inputs, 4>},
                                      {1, multiply_pixels<Inputs, 1>}};
  const Pixels *fit = widths;
  while (fit->count > left || fit->count > MOST_SUMS) fit++;
  return *fit;
}

/* pixels x (image, height, width, input) -> y (image, height', width', output); weights (row, column, input, output);
 * scratch: one framed image */
void stem(const float *x, float offset, float scale, const float *weights, Optional<const float> bias, bfloat16 *y,
          Index images, int height, int width, int inputs, int outputs, int kernel, int padding, bool relu,
          float *scratch) {
  const int framed = width + 2 * padding, y_height = height + 2 * padding - kernel + 1, y_width = framed - kernel + 1;
  const Index pitch = Index{framed} * inputs;
  with_constant(StemChannels{}, inputs, [&](auto Inputs) {
    for (Index n = 0; n < images; n++, x += Index{height} * width * Inputs, y += Index{y_height} * y_width * outputs) {
      scaled_frame(x, height, width, Inputs, padding, offset, scale, scratch);
      for (int c = 0; c < outputs; c += 16)
        for (int w = 0, taken; w < y_width; w += taken) {
          const auto [count, multiply] = most_pixels<Inputs>(y_width - w);
          const Floats start = bias.values ? load(bias.values + c) : zeros();
          for (int h = 0; h < y_height; h++)
            multiply(scratch + h * pitch + Index{w} * Inputs, pitch, weights + c, kernel, outputs, start,
                     lower_bound(relu), y + (Index{h} * y_width + w) * outputs + c);
          taken = count;
        }
    }
  });
}

/* --- gradient of the weights -------------------------------------------------------------------------------------- */

/* Sums that are in the registers at once, beside that of the bias: of all taps, of a row's, or of a part of a row's. */
constexpr int taps_at_once(int kernel, int inputs) {
  if (kernel * kernel * inputs + 1 <= MOST_SUMS) return kernel * kernel * inputs;
  int taps = kernel * inputs;
  while (taps + 1 > MOST_SUMS || kernel * inputs % taps) taps--;
  return taps;
}

/* One image's part of the sums (tap, output) of 16 outputs, from tap `first` on. `total` is the sum of the gradients,
 * which count only where those of `mask` are above 0. */
template <int Kernel, int Inputs, bool Masked>
void add_taps(const float *x, Index pitch, int first, const bfloat16 *dy, const bfloat16 *mask, float *sums,
              float *total, int height, int width, Index outputs) {
  constexpr int taps = taps_at_once(Kernel, Inputs), row_taps = Kernel * Inputs;
  constexpr int rows = taps > row_taps ? Kernel : 1, across = taps / rows;
  Floats all = load(total), tap_sums[taps];
  x += first / row_taps * pitch + first % row_taps, sums += first * outputs;
  unrolled<taps>([&](auto i) INLINE_LAMBDA { tap_sums[i] = load(sums + i * outputs); });
  for (int h = 0; h < height; h++, x += pitch) {
    const float *from[rows];
    unrolled<rows>([&](auto row) INLINE_LAMBDA { from[row] = x + row * pitch; });
    for (Index w = 0; w < width; w++, dy += outputs) {
      const Floats d = Masked ? load_where_positive(dy, mask) : load(dy);
      all = add(all, d);
      unrolled<taps>([&](auto i) INLINE_LAMBDA {
        tap_sums[i] = multiply_add(d, broadcast(from[i / across][w * Inputs + i % across]), tap_sums[i]);
      });
      if constexpr (Masked) mask += outputs;
    }
  }
  unrolled<taps>([&](auto i) INLINE_LAMBDA { store(sums + i * outputs, tap_sums[i]); });
  store(total, all);
}

/* sums (row, column, input, output) and bias_sums (output), or none, are added to; scratch: one framed image */
void stem_weight_gradient(const float *x, float offset, float scale, const bfloat16 *dy, Optional<const bfloat16> mask,
                          float *sums, Optional<float> bias_sums, Index images, int height, int width, int inputs,
                          int outputs, int kernel, int padding, float *scratch) {
  const int framed = width + 2 * padding, y_height = height + 2 * padding - kernel + 1, y_width = framed - kernel + 1;
  const Index pitch = Index{framed} * inputs, y_image = Index{y_height} * y_width * outputs;
  const auto add_images = [&](auto size, auto Inputs) {
    constexpr int taps = taps_at_once(size, Inputs);
    const auto add = mask.values ? add_taps<size, Inputs, true> : add_taps<size, Inputs, false>;
    for (Index n = 0; n < images; n++, x += Index{height} * width * Inputs) {
      scaled_frame(x, height, width, Inputs, padding, offset, scale, scratch);
      for (int c = 0; c < outputs; c += 16)
        for (int first = 0; first < size * size * Inputs; first += taps) {
          float unused[16] = {};
          float *const total = bias_sums.values && first == 0 ? bias_sums.values + c : unused;
          add(scratch, pitch, first, dy + n * y_image + c, mask.values ? mask.values + n * y_image + c : nullptr,
              sums + c, total, y_height, y_width, outputs);
        }
    }
  };
  with_constant(KernelSizes{}, kernel, [&](auto size) {
    with_constant(StemChannels{}, inputs, [&](auto Inputs) { add_images(size, Inputs); });
  });
}

/* sums (tap, output) -> gradient (output, tap) */
void transpose(const float *sums, float *gradient, int taps, int outputs) {
  for (int o = 0; o < outputs; o++)
    for (int t = 0; t < taps; t++) gradient[Index{o} * taps + t] = sums[Index{t} * outputs + o];
}

} // namespace
