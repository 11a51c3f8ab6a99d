/* What training does in float32 besides the layers: steps of the optimisers, and random maps of images. */
#pragma once
#include <cmath>
#include "shapes.h"

namespace {

/* --- optimisers --------------------------------------------------------------------------------------------------- */

/* Nadam: p -= g_rate * g / d + m_rate * m / d with d = sqrt(v / correction) + epsilon; m and v are running means of g
 * and g^2 */
void nadam(float *p, const float *g, float *m, float *v, Index count, float g_rate, float m_rate, float beta1,
           float beta2, float correction, float epsilon, float decay) {
  const Floats b1 = broadcast(1 - beta1), b2 = broadcast(1 - beta2), e = broadcast(epsilon);
  const Floats by = broadcast(1 / correction);
  for (Index i = 0; i < count; i += 16) {
    const Mask lanes = first_lanes(count - i);
    const Floats value = load(lanes, p + i), old_mean = load(lanes, m + i), old_square = load(lanes, v + i);
    const Floats slope = multiply_add(broadcast(decay), value, load(lanes, g + i));
    const Floats mean = multiply_add(b1, subtract(slope, old_mean), old_mean);
    const Floats square = multiply_add(b2, multiply_subtract(slope, slope, old_square), old_square);
    const Floats direction = multiply_add(broadcast(g_rate), slope, multiply(broadcast(m_rate), mean));
    const Floats step = divide(direction, add(square_root(multiply(square, by)), e));
    store(lanes, p + i, subtract(value, step)), store(lanes, m + i, mean), store(lanes, v + i, square);
  }
}

/* Adadelta: u = g * sqrt(a + epsilon) / sqrt(v + epsilon), p -= rate * u; v and a are running means of g^2 and u^2 */
void adadelta(float *p, const float *g, float *v, float *a, Index count, float rate, float rho, float epsilon,
              float decay) {
  const Floats new_part = broadcast(1 - rho), e = broadcast(epsilon);
  for (Index i = 0; i < count; i += 16) {
    const Mask lanes = first_lanes(count - i);
    const Floats value = load(lanes, p + i), old_square = load(lanes, v + i), old_update = load(lanes, a + i);
    const Floats slope = multiply_add(broadcast(decay), value, load(lanes, g + i));
    const Floats square = multiply_add(new_part, multiply_subtract(slope, slope, old_square), old_square);
    const Floats update = multiply(slope, square_root(divide(add(old_update, e), add(square, e))));
    const Floats squared_update = multiply_add(new_part, multiply_subtract(update, update, old_update), old_update);
    store(lanes, p + i, subtract_product(value, broadcast(rate), update));
    store(lanes, v + i, square), store(lanes, a + i, squared_update);
  }
}

/* --- affine maps of images ---------------------------------------------------------------------------------------- */

/* y (pixel) = x at matrix (2, 3) * pixel, both from the image's centre, plus its displacement (x and y; height, width),
 * bilinear; outside x lies 0, or with `edge` its nearest pixel. */
void warp(const float *x, const float *matrices, Optional<const float> displacements, float *y, Index images,
          int height, int width, int channels, bool edge) {
  const Ints widths = broadcast(width), heights = broadcast(height), one = broadcast(1);
  const float middle_x = (width - 1) / 2.0f, middle_y = (height - 1) / 2.0f;
  /* Two pixels outside all are as good as further ones. */
  const Floats left = broadcast(edge ? 0.0f : -2.0f), top = left;
  const Floats right = broadcast(static_cast<float>(edge ? width - 1 : width + 1));
  const Floats bottom = broadcast(static_cast<float>(edge ? height - 1 : height + 1));
  for (Index n = 0; n < images; n++, x += Index{height} * width * channels, matrices += 6)
    for (int h = 0; h < height; h++) {
      const float across = std::fma(matrices[1], h - middle_y, matrices[2]) + middle_x;
      const float down = std::fma(matrices[4], h - middle_y, matrices[5]) + middle_y;
      for (int w = 0; w < width; w += 16) {
        const Mask lanes = first_lanes(width - w);
        const Floats from = add(lane_numbers(), broadcast(w - middle_x));
        Floats sx = multiply_add(broadcast(matrices[0]), from, broadcast(across));
        Floats sy = multiply_add(broadcast(matrices[3]), from, broadcast(down));
        if (displacements.values) {
          const float *displacement = displacements.values + (n * 2 * height + h) * width + w;
          sx = add(sx, load(lanes, displacement)), sy = add(sy, load(lanes, displacement + Index{height} * width));
        }
        sx = smaller_of(larger_of(sx, left), right), sy = smaller_of(larger_of(sy, top), bottom);
        const Floats floor_x = round_down(sx), floor_y = round_down(sy);
        const Ints x0 = whole(floor_x), y0 = whole(floor_y);
        const Floats tx = subtract(sx, floor_x), ty = subtract(sy, floor_y);
        const Floats ux = subtract(broadcast(1.0f), tx), uy = subtract(broadcast(1.0f), ty);
        const Mask in_x0 = within(x0, widths), in_x1 = within(add(x0, one), widths);
        const Mask in_y0 = lanes & within(y0, heights), in_y1 = lanes & within(add(y0, one), heights);
        const Ints at0 = multiply(add(multiply(y0, widths), x0), broadcast(channels));
        const Ints at1 = add(at0, multiply(widths, broadcast(channels)));
        for (int c = 0; c < channels; c++) {
          const Floats v00 = gather(in_x0 & in_y0, x + c, at0), v01 = gather(in_x1 & in_y0, x + channels + c, at0);
          const Floats v10 = gather(in_x0 & in_y1, x + c, at1), v11 = gather(in_x1 & in_y1, x + channels + c, at1);
          const Floats upper = multiply_add(v01, tx, multiply(v00, ux));
          const Floats lower = multiply_add(v11, tx, multiply(v10, ux));
          const Floats value = multiply_add(lower, ty, multiply(upper, uy));
          float *to = y + ((n * height + h) * width + w) * channels + c;
          if (channels == 1) {
            store(lanes, to, value);
          } else {
            float values[16];
            store(values, value);
            for (int i = 0; i < 16 && w + i < width; i++) to[Index{i} * channels] = values[i];
          }
        }
      }
    }
}

} // namespace
