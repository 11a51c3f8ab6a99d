/* The eight tile registers of AMX, 16 rows of 64 bytes each, and the same in plain C++ for CPUs without them.
 *
 * Tiles is a unit of the calling thread: an object configures it, and releases it when it goes, so that no other code
 * of the thread finds it in use and the operating system has 8 KB less to save. That is once for each exported
 * function.
 *
 *   load<tile>(from, stride)   16 rows of 64 bytes, `stride` bytes apart
 *   zero<tile>()
 *   dot<sums, a, b>()          sums (16, 16) float32 += a (16, 32) . b (32, 16), both bfloat16; b's rows lie in pairs:
 *                              (16, 16, 2)
 *   store<tile>(to)            16 rows of 64 bytes, one after the other
 *
 * A dot takes 16 cycles and its sums are ready after 52, so that four or five of them are done side by side; a load
 * takes 8 cycles where it finds its rows in the first-level cache (Intel 64 and IA-32 Architectures Optimization
 * Reference Manual, chapter 20). Include a vector layer before this.
 */
#pragma once
#include <cstring>
#include "shapes.h"
#include "table.h"

namespace {

constexpr Index TILE_NUMBERS = 512; /* of bfloat16; 256 floats */
constexpr Index TILE_ROW = 32;      /* the same of a row; 16 floats */

/* The instructions are written out: gcc's intrinsics take the tile's number as a literal only, and its loads do not say
 * that they read memory. */
struct AmxTiles {
  AmxTiles() {
    struct alignas(64) Configuration {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } const configuration;
    static_assert(sizeof configuration == 64);
    __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
  }
  AmxTiles(const AmxTiles &) = delete;
  ~AmxTiles() { __asm__ volatile("tilerelease"); }

  template <int Tile> INLINE void load(const void *from, Index stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(Tile) : "memory");
  }
  template <int Tile> INLINE void zero() { __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile)); }
  template <int Sums, int A, int B> INLINE void dot() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
  }
  template <int Tile> INLINE void store(float *to) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(Index{64}), "i"(Tile) : "memory");
  }
};

/* The same, with the roundings of the manual's pseudo-code for TDPBF16PS (Intel 64 and IA-32 Architectures Software
 * Developer's Manual, volume 2), but that numbers below 2^-126 count here, which the tiles take for 0. */
struct EmulatedTiles {
  alignas(64) std::uint16_t numbers[8][TILE_NUMBERS];

  EmulatedTiles() { std::memset(numbers, 0, sizeof numbers); }
  EmulatedTiles(const EmulatedTiles &) = delete;

  template <int Tile> void load(const void *from, Index stride) {
    for (int row = 0; row < 16; row++)
      std::memcpy(numbers[Tile] + row * TILE_ROW, static_cast<const char *>(from) + row * stride, 64);
  }
  template <int Tile> void zero() { std::memset(numbers[Tile], 0, sizeof numbers[Tile]); }
  template <int Tile> void store(float *to) { std::memcpy(to, numbers[Tile], sizeof numbers[Tile]); }

  template <int Sums, int A, int B> void dot() {
    float sums[256], a[TILE_NUMBERS], b[2][256]; /* b: those of the first of each pair of rows, and of the second */
    std::memcpy(sums, numbers[Sums], sizeof sums);
    widen(numbers[A], 1, TILE_NUMBERS, a), widen(numbers[B], 2, 256, b[0]), widen(numbers[B] + 1, 2, 256, b[1]);
    for (int row = 0; row < 16; row++) {
      Floats first = zeros(), second = zeros();
      for (int pair = 0; pair < 16; pair++) {
        const float *of = a + row * TILE_ROW + 2 * pair;
        first = multiply_add(broadcast(of[0]), ::load(b[0] + 16 * pair), first);
        second = multiply_add(broadcast(of[1]), ::load(b[1] + 16 * pair), second);
      }
      ::store(sums + 16 * row, add(::load(sums + 16 * row), add(first, second)));
    }
    std::memcpy(numbers[Sums], sums, sizeof sums);
  }

 private:
  static void widen(const std::uint16_t *from, int step, int count, float *to) {
    std::uint32_t bits[TILE_NUMBERS];
    for (int i = 0; i < count; i++) bits[i] = std::uint32_t{from[step * i]} << 16;
    std::memcpy(to, bits, sizeof(float) * count);
  }
};

/* --- rows for tiles ----------------------------------------------------------------------------------------------- */

/* Transposes 16 rows of 16 values of 32 bits: floats, or pairs of bfloat16. Rows are `stride` bytes apart in `from`. */
INLINE void transpose_16(const void *from, Index stride, void *to) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(static_cast<const char *>(from) + i * stride);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) { /* a[i + k]: value 4 * q + k of the four rows from i, for the quarters q */
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int k = 0; k < 4; k++) { /* quarters change places with groups of four rows */
    const __m512i even_low = _mm512_shuffle_i32x4(a[k], a[k + 4], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(a[k], a[k + 4], 0xdd);
    const __m512i even_high = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0x88);
    const __m512i odd_high = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0xdd);
    b[k] = _mm512_shuffle_i32x4(even_low, even_high, 0x88), b[k + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    b[k + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88), b[k + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
  for (int i = 0; i < 16; i++) _mm512_storeu_si512(static_cast<char *>(to) + 64 * i, b[i]);
}

/* 16 values of each of two pixels, as pairs. Both come from memory: between registers, a half takes a shuffle more. */
INLINE __m512i paired(const bfloat16 *first, const bfloat16 *second) {
  return alternating(_mm512_inserti64x4(_mm512_castsi256_si512(load_bits(first)), load_bits(second), 1));
}

/* Copies values, 0 where that at `sign` is not above 0. */
INLINE void copy_where_positive(Index count, const bfloat16 *from, const bfloat16 *sign, bfloat16 *to) {
  for (Index i = 0; i < count; i += 32) {
    const __mmask32 present = count - i >= 32 ? 0xffffffffu : (1u << (count - i)) - 1;
    const __mmask32 kept = _mm512_cmpgt_epi16_mask(_mm512_maskz_loadu_epi16(present, sign + i), _mm512_setzero_si512());
    _mm512_mask_storeu_epi16(to + i, present,
                             _mm512_maskz_mov_epi16(kept, _mm512_maskz_loadu_epi16(present, from + i)));
  }
}

/* The rows of an image (row, column, channel) to rows `pitch` numbers apart, 0 where `mask`, if there is one, is not
 * above 0. */
inline void copy_rows(const bfloat16 *image, const bfloat16 *mask, int height, Index row, bfloat16 *to, Index pitch) {
  for (int h = 0; h < height; h++, image += row, to += pitch) {
    if (mask)
      copy_where_positive(row, image, mask + h * row, to);
    else
      std::memcpy(static_cast<void *>(to), image, sizeof(bfloat16) * row);
  }
}

} // namespace
