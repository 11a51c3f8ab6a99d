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

/* Calls function(down, across) with compile-time constants for the usual window. */
template <class Function> INLINE void with_window(int down, int across, Function &&function) {
  using Two = std::integral_constant<int, 2>;
  down == 2 && across == 2 ? function(Two{}, Two{}) : function(down, across);
}

template <bool Choosing, class Down, class Across>
void pool_windows(const bfloat16 *x, bfloat16 *y, [[maybe_unused]] std::int16_t *chosen, bool positive, Index images,
                  int height, int width, int channels, Down down, Across across) {
  for (Index n = 0; n < images; n++, x += Index{height} * width * channels)
    for (int h = 0; h < height / down; h++)
      for (int w = 0; w < width / across; w++, y += channels)
        for (int c = 0; c < channels; c += 16) {
          const bfloat16 *from = x + (Index{h} * down * width + w * across) * channels + c;
          Floats most = load(from);
          for (int i = 0; i < down; i++)
            for (int j = 0; j < across; j++) most = larger_of(most, load(from + (Index{i} * width + j) * channels));
          store(y + c, most);
          if constexpr (Choosing) {
            Mask open = positive ? greater(most, zeros()) : first_lanes(16);
            for (int i = 0; i < down; i++)
              for (int j = 0; j < across; j++) {
                const Mask here = equal(open, load(from + (Index{i} * width + j) * channels), most);
                open &= static_cast<Mask>(~here);
                *chosen++ = static_cast<std::int16_t>(here);
              }
          }
        }
}

/* The largest value of each window of down * across pixels; rows and columns that do not fill one are left out. */
void max_pool(const bfloat16 *x, bfloat16 *y, Index images, int height, int width, int channels, int down, int across) {
  with_window(down, across, [&](auto d, auto a) {
    pool_windows<false>(x, y, nullptr, false, images, height, width, channels, d, a);
  });
}

/* Also chosen (window, channel / 16, pixel of the window), a bit for each channel whose first largest value is there;
 * with `positive`, as after relu, only of values above 0. */
void max_pool_choosing(const bfloat16 *x, bfloat16 *y, std::int16_t *chosen, bool positive, Index images, int height,
                       int width, int channels, int down, int across) {
  with_window(down, across, [&](auto d, auto a) {
    pool_windows<true>(x, y, chosen, positive, images, height, width, channels, d, a);
  });
}

/* The gradient goes to what was chosen; height and width are those of dx. */
void max_pool_gradient(const std::int16_t *chosen, const bfloat16 *dy, bfloat16 *dx, Index images, int height,
                       int width, int channels, int down, int across) {
  const Index image = Index{height} * width * channels;
  with_window(down, across, [&](auto d, auto a) {
    for (Index n = 0; n < images; n++, dx += image) {
      if (height % d || width % a) std::memset(static_cast<void *>(dx), 0, sizeof(bfloat16) * image);
      for (int h = 0; h < height / d; h++)
        for (int w = 0; w < width / a; w++, dy += channels)
          for (int c = 0; c < channels; c += 16) {
            bfloat16 *to = dx + (Index{h} * d * width + w * a) * channels + c;
            for (int i = 0; i < d; i++)
              for (int j = 0; j < a; j++)
                copy_or_zero(static_cast<Mask>(static_cast<std::uint16_t>(*chosen++)), dy + c,
                             to + (Index{i} * width + j) * channels);
          }
    }
  });
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
