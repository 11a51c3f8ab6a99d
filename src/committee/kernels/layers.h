/* Normalisation, relu, max pooling and dropout of bfloat16 values (row, channel): a row is a pixel of an image. */
#pragma once
#include <cmath>
#include <cstring>
#include "convolution.h"

namespace {

/* --- normalisation and relu --------------------------------------------------------------------------------------- */

constexpr Index BLOCK_ROWS = 256; /* so many rows are summed in float32, and these sums in float64 */

/* z = factor * x + shift, a channel at a time, 0 where that is negative with relu */
void scale_and_shift(const bfloat16 *x, const float *factor, const float *shift, bfloat16 *z, Index rows, int channels,
                     bool relu) {
  const Floats least = lower_bound(relu);
  for (int c = 0; c < channels; c += 16) {
    const Floats f = load(factor + c), s = load(shift + c);
    for (Index r = 0; r < rows; r++)
      store(z + r * channels + c, larger_of(multiply_add(f, load(x + r * channels + c), s), least));
  }
}

/* Batch normalisation: statistics (mean, variance, factor, shift; channel) are written, z = factor * x + shift; the
 * running mean and (unbiased) variance move by `momentum` towards the batch's. sums: 2 * channels of scratch. */
void batch_norm(const bfloat16 *x, const float *gamma, const float *beta, float epsilon, float momentum,
                float *running_mean, float *running_variance, double *sums, float *statistics, bfloat16 *z, Index rows,
                int channels, bool relu) {
  std::memset(sums, 0, sizeof(double) * 2 * channels);
  for (Index begin = 0; begin < rows; begin += BLOCK_ROWS) {
    const Index end = begin + BLOCK_ROWS < rows ? begin + BLOCK_ROWS : rows;
    for (int c = 0; c < channels; c += 16) {
      Floats sum = zeros(), squares = zeros();
      for (Index r = begin; r < end; r++) {
        const Floats v = load(x + r * channels + c);
        sum = add(sum, v), squares = multiply_add(v, v, squares);
      }
      add_to_doubles(sums + c, sum), add_to_doubles(sums + channels + c, squares);
    }
  }
  float *const factor = statistics + 2 * channels, *const shift = factor + channels;
  for (int c = 0; c < channels; c++) {
    const double mean = sums[c] / rows, difference = std::fma(-mean, mean, sums[channels + c] / rows);
    const double variance = difference > 0 ? difference : 0;
    statistics[c] = mean, statistics[channels + c] = variance;
    factor[c] = gamma[c] / std::sqrt(variance + epsilon), shift[c] = std::fma(-mean, factor[c], beta[c]);
    running_mean[c] = std::fma(momentum, static_cast<float>(mean) - running_mean[c], running_mean[c]);
    const float unbiased = variance * rows / (rows > 1 ? rows - 1 : 1);
    running_variance[c] = std::fma(momentum, unbiased - running_variance[c], running_variance[c]);
  }
  scale_and_shift(x, factor, shift, z, rows, channels, relu);
}

/* dgamma, dbeta and dx from dz, which counts where relu let z through; scratch: 3 * channels */
void batch_norm_gradient(const bfloat16 *x, const bfloat16 *dz, const float *statistics, float epsilon, double *scratch,
                         float *dgamma, float *dbeta, bfloat16 *dx, Index rows, int channels, bool relu) {
  const float *const factor = statistics + 2 * channels, *const shift = factor + channels;
  const Floats least = lower_bound(relu);
  const auto gradient_at = [&](Floats f, Floats s, Floats v, Index at) INLINE_LAMBDA {
    return zero_unless(greater(multiply_add(f, v, s), least), load(dz + at));
  };
  double *const sums = scratch;
  std::memset(sums, 0, sizeof(double) * 2 * channels);
  for (Index begin = 0; begin < rows; begin += BLOCK_ROWS) {
    const Index end = begin + BLOCK_ROWS < rows ? begin + BLOCK_ROWS : rows;
    for (int c = 0; c < channels; c += 16) {
      const Floats f = load(factor + c), s = load(shift + c);
      Floats sum = zeros(), products = zeros();
      for (Index r = begin; r < end; r++) {
        const Floats v = load(x + r * channels + c), d = gradient_at(f, s, v, r * channels + c);
        sum = add(sum, d), products = multiply_add(d, v, products);
      }
      add_to_doubles(sums + c, sum), add_to_doubles(sums + channels + c, products);
    }
  }
  /* dx = factor * dz + slope * x + constant */
  float *const slope = reinterpret_cast<float *>(scratch + 2 * channels), *const constant = slope + channels;
  for (int c = 0; c < channels; c++) {
    const double mean = statistics[c], variance = statistics[channels + c], total = sums[c];
    const double inverse_deviation = 1 / std::sqrt(variance + epsilon);
    const double product = inverse_deviation * std::fma(-mean, total, sums[channels + c]);
    dgamma[c] = product, dbeta[c] = total;
    const double x_slope = -factor[c] * inverse_deviation * product / rows;
    slope[c] = x_slope, constant[c] = -std::fma(mean, x_slope, factor[c] * total / rows);
  }
  for (int c = 0; c < channels; c += 16) {
    const Floats f = load(factor + c), s = load(shift + c), p = load(slope + c), q = load(constant + c);
    for (Index r = 0; r < rows; r++) {
      const Floats v = load(x + r * channels + c), d = gradient_at(f, s, v, r * channels + c);
      store(dx + r * channels + c, multiply_add(f, d, multiply_add(p, v, q)));
    }
  }
}

/* --- max pooling -------------------------------------------------------------------------------------------------- */

/* The largest value of each window of down * across pixels; rows and columns that do not fill one are left out. */
void max_pool(const bfloat16 *x, bfloat16 *y, Index images, int height, int width, int channels, int down, int across) {
  const int y_height = height / down, y_width = width / across;
  for (Index n = 0; n < images; n++, x += Index{height} * width * channels)
    for (int h = 0; h < y_height; h++)
      for (int w = 0; w < y_width; w++, y += channels)
        for (int c = 0; c < channels; c += 16) {
          const bfloat16 *from = x + (Index{h} * down * width + w * across) * channels + c;
          Floats most = load(from);
          for (int i = 0; i < down; i++)
            for (int j = 0; j < across; j++) most = larger_of(most, load(from + (Index{i} * width + j) * channels));
          store(y + c, most);
        }
}

/* The gradient goes to the first largest value of a window. */
void max_pool_gradient(const bfloat16 *x, const bfloat16 *y, const bfloat16 *dy, bfloat16 *dx, Index images, int height,
                       int width, int channels, int down, int across) {
  const int y_height = height / down, y_width = width / across;
  const Index image = Index{height} * width * channels;
  for (Index n = 0; n < images; n++, x += image, dx += image) {
    if (height % down || width % across) std::memset(static_cast<void *>(dx), 0, sizeof(bfloat16) * image);
    for (int h = 0; h < y_height; h++)
      for (int w = 0; w < y_width; w++, y += channels, dy += channels)
        for (int c = 0; c < channels; c += 16) {
          const Index at = (Index{h} * down * width + w * across) * channels + c;
          const Floats most = load(y + c);
          Mask open = first_lanes(16);
          for (int i = 0; i < down; i++)
            for (int j = 0; j < across; j++) {
              const Index place = at + (Index{i} * width + j) * channels;
              const Mask here = equal(open, load(x + place), most);
              copy_or_zero(here, dy + c, dx + place);
              open &= static_cast<Mask>(~here);
            }
        }
  }
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

INLINE std::uint64_t split_mix(std::uint64_t &state) { /* Steele, Lea & Flood 2014 */
  std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* y = factor * x, or 0 with probability dropped / 65536, drawn from the key; a bit for each value kept goes to bits. */
void dropout(const bfloat16 *x, bfloat16 *y, std::int32_t *bits, Index count, std::int64_t key, int dropped,
             float factor) {
  std::uint64_t state = static_cast<std::uint64_t>(key), seeds[16];
  for (std::uint64_t &seed : seeds) seed = split_mix(state);
  RandomStreams streams(seeds);
  for (Index i = 0; i < count; i += 32) {
    const std::uint32_t kept = streams.at_least(dropped);
    bits[i / 32] = static_cast<std::int32_t>(kept);
    scale_or_zero_32(kept, count - i, x + i, broadcast(factor), y + i);
  }
}

void dropout_gradient(const bfloat16 *dy, const std::int32_t *bits, bfloat16 *dx, Index count, float factor) {
  for (Index i = 0; i < count; i += 32)
    scale_or_zero_32(static_cast<std::uint32_t>(bits[i / 32]), count - i, dy + i, broadcast(factor), dx + i);
}

} // namespace
