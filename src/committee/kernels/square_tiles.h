/* F(m x m, r x r): tiles of squares instead of rows, for paths that multiply floats.
 *
 * The transforms of winograd.h along rows, then along columns (Lavin and Gray, 2016, section 4.2): a tile of 4 x 4
 * outputs of a 3 x 3 filter takes 36 products a channel, where it takes 72 along rows alone, and 144 without. Values
 * would lose too much by rounding to bfloat16 at 36 points; in float32 they are as good as those along rows.
 */
#pragma once
#include <cstring>
#include "winograd.h"

namespace {
namespace by_squares {

constexpr int POINTS = TRANSFORM_POINTS * TRANSFORM_POINTS; /* point / TRANSFORM_POINTS down, the rest across */

/* The tiles of neighbouring rows of an image's outputs. */
struct Tiles {
  RowTiles down, across;

  Tiles(int height, int width, int kernel) : down(height, kernel), across(width, kernel) {}
  int rows() const { return down.with_point(0); }
  int with_point(int point) const {
    return down.with_point(point / TRANSFORM_POINTS) * across.with_point(point % TRANSFORM_POINTS);
  }
  Index points() const { return Index{down.points()} * across.points(); }
  /* `count` rows of tiles from `first` on */
  Tiles part(int first, int count) const {
    Tiles some = *this;
    some.down.last = first + count > down.full ? down.last : 0;
    some.down.full = count - (some.down.last > 0);
    return some;
  }
};

/* What is worked on together: some whole images, or of one some rows of tiles, that fit into a cache. */
struct Division {
  Index images;
  int rows;

  Division(Index all, const Tiles &tiles, int channels, Index bytes) {
    const Index row = TRANSFORM_POINTS * Index{tiles.across.points()} * channels * sizeof(float);
    const Index image = tiles.points() * channels * sizeof(float), fitting = bytes / image;
    images = fitting < 1 ? 1 : fitting < all ? fitting : all;
    rows = fitting >= 1 || bytes / row >= tiles.rows() ? tiles.rows() : bytes < row ? 1 : static_cast<int>(bytes / row);
  }
  /* tiles' points, all together */
  Index points(const Tiles &tiles) const {
    const Index down = rows < tiles.rows() ? Index{TRANSFORM_POINTS} * rows : tiles.down.points();
    return images * down * tiles.across.points();
  }
  /* Calls function(first image, images, first row, tiles). */
  template <class Function> INLINE void for_each(Index all, const Tiles &tiles, Function &&function) const {
    for (Index n = 0; n < all; n += images)
      for (int row = 0; row < tiles.rows(); row += rows)
        function(n, all - n < images ? all - n : images, row,
                 tiles.part(row, tiles.rows() - row < rows ? tiles.rows() - row : rows));
  }
};

/* An array for each point: (channel / 16, image, row of tiles, tile, 16) */
struct PointValues {
  float *first[POINTS];
  Index image[POINTS], part[POINTS]; /* from one image to the next, from 16 channels to the next */
  Tiles tiles;

  PointValues(float *from, const Tiles &tiles, Index images, int channels) : tiles(tiles) {
    for (int p = 0; p < POINTS; p++) {
      first[p] = from, image[p] = tiles.with_point(p) * 16, part[p] = images * image[p];
      from += part[p] * (channels / 16);
    }
  }
};

/* Where the next row of tiles lies at each point. */
struct RowOfTiles {
  float *at[POINTS];

  explicit RowOfTiles(const PointValues &values, Index image = 0, Index part = 0) {
    for (int p = 0; p < POINTS; p++) at[p] = values.first[p] + part * values.part[p] + image * values.image[p];
  }
  /* past a row whose tiles have so many points down, `apart` from one tile to the next */
  template <int Down> INLINE void pass(RowTiles across, Index apart) {
    for (int p = 0; p < TRANSFORM_POINTS; p++) {
      const Index row = across.with_point(p) * apart;
      for (int q = 0; q < Down; q++) at[q * TRANSFORM_POINTS + p] += row;
    }
  }
};

/* Rows that were transformed along themselves, (tile, point, 16), wait here for others of their tiles. */
struct RowBuffer {
  static constexpr int ROWS = 8;
  float *values;
  Index row;

  static Index numbers(const Tiles &tiles) { return Index{ROWS} * tiles.across.points() * 16; }
  RowBuffer(float *values, const Tiles &tiles) : values(values), row(Index{tiles.across.points()} * 16) {}
  float *operator[](int number) const { return values + (number & (ROWS - 1)) * row; }
};

/* Calls tile(points) for row `number` of a column of tiles. */
template <int Kernel, class Function> INLINE void with_points(RowTiles tiles, int number, Function &&tile) {
  if (number < tiles.full)
    tile(std::integral_constant<int, TRANSFORM_POINTS>{});
  else
    with_last_tile<Kernel>(tiles.last, tile);
}

/* The second half of a transform, of a row of tiles: across the rows in the buffer from `first` on; passes the row. */
template <int Rows, int Points, class Transform>
INLINE void transform_across_rows(RowBuffer buffer, int first, RowTiles across, RowOfTiles &to, Transform transform) {
  const float *rows[Rows];
  for (int r = 0; r < Rows; r++) rows[r] = buffer[first + r];
  for (int p = 0; p < TRANSFORM_POINTS; p++)
    for (int tile = 0, count = across.with_point(p); tile < count; tile++) {
      Floats values[Rows], points[TRANSFORM_POINTS];
      unrolled<Rows>([&](auto r) INLINE_LAMBDA { values[r] = load(rows[r] + (tile * TRANSFORM_POINTS + p) * 16); });
      transform(values, points);
      unrolled<Points>(
          [&](auto q) INLINE_LAMBDA { store(to.at[q * TRANSFORM_POINTS + p] + tile * 16, points[q]); });
    }
  to.pass<Points>(across, 16);
}

/* --- input -------------------------------------------------------------------------------------------------------- */

template <int Kernel, bool Masked>
INLINE void transform_input_row(PixelRow<Masked> row, int padding, RowTiles tiles, float *to) {
  TilePixels<Kernel, Masked> pixels(row, padding);
  const auto tile = [&](auto points) INLINE_LAMBDA {
    Floats values[TRANSFORM_POINTS];
    pixels.template transform_next<points>(values);
    unrolled<points>([&](auto p) INLINE_LAMBDA { store(to + 16 * p, values[p]); });
    to += 16 * TRANSFORM_POINTS;
  };
  for (int full = 0; full < tiles.full; full++) tile(std::integral_constant<int, TRANSFORM_POINTS>{});
  with_last_tile<Kernel>(tiles.last, tile);
}

/* An image's pixels under the tiles, whose first row of outputs is `top` -> its values; `image` is the first row. */
template <int Kernel, bool Masked>
void transform_input(PixelRow<Masked> image, int height, int padding, int top, RowBuffer buffer, Index number,
                     const PointValues &to) {
  constexpr int step = outputs_of_tile(TRANSFORM_POINTS, Kernel);
  for (int c = 0; c < image.channels; c += 16) {
    RowOfTiles out(to, number, c / 16);
    int next = 0; /* row under the tiles that comes next into the buffer */
    for (int t = 0; t < to.tiles.rows(); t++)
      with_points<Kernel>(to.tiles.down, t, [&](auto points) INLINE_LAMBDA {
        for (; next < t * step + points; next++) {
          const int h = top + next - padding;
          const Index at = Index{h} * image.width * image.channels + c;
          if (h < 0 || h >= height)
            std::memset(buffer[next], 0, sizeof(float) * buffer.row);
          else
            transform_input_row<Kernel, Masked>(
                {image.values + at, Masked ? image.mask + at : nullptr, image.width, image.channels}, padding,
                to.tiles.across, buffer[next]);
        }
        transform_across_rows<points, points>(buffer, t * step, to.tiles.across, out,
                                              [&](const Floats *d, Floats *values)
                                                  INLINE_LAMBDA { ::transform_input<points>(d, values); });
      });
  }
}

} // namespace by_squares
} // namespace
