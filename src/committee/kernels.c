/* The inner loops of training on CPUs with AVX-512 bfloat16: convolution, normalisation, pooling.
 *
 * Images are (image, height, width, channel), values bfloat16, sums float32. Everything runs in the calling thread and
 * adds in a fixed order, so equal calls give equal bits. kernels.py wraps each function and says what it does; on other
 * CPUs this file compiles to an empty module and torch does the work.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", 0, -1, 0, 0, 0, 0, 0};
PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&module); }

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && (__GNUC__ >= 11 || defined(__clang__))
#define EXPORT __attribute__((visibility("default")))
EXPORT int committee_supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16");
}

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"))),                 \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#endif
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
#define INLINE static inline __attribute__((always_inline))

INLINE __m512 widen(__m256i values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}
INLINE __m256i narrow(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }
INLINE __m512 get(const bf16 *from) { return widen(_mm256_loadu_si256((const __m256i *)from)); }
INLINE void put(bf16 *to, __m512 values) { _mm256_storeu_si256((__m256i *)to, narrow(values)); }

/* REP_n(M) is M(0) M(1) ... M(n-1). Sums live in variables named one by one, since an array would live in memory. */
#define REP_1(M) M(0)
#define REP_2(M) REP_1(M) M(1)
#define REP_3(M) REP_2(M) M(2)
#define REP_4(M) REP_3(M) M(3)
#define REP_5(M) REP_4(M) M(4)
#define REP_6(M) REP_5(M) M(5)
#define REP_7(M) REP_6(M) M(6)
#define REP_8(M) REP_7(M) M(7)
#define REP_9(M) REP_8(M) M(8)
#define REP_10(M) REP_9(M) M(9)
#define REP_11(M) REP_10(M) M(10)
#define REP_12(M) REP_11(M) M(11)
#define REP_13(M) REP_12(M) M(12)
#define REP_14(M) REP_13(M) M(13)
#define REP_15(M) REP_14(M) M(14)
#define REP_16(M) REP_15(M) M(15)
#define REP_17(M) REP_16(M) M(16)
#define REP_18(M) REP_17(M) M(17)
#define REP_19(M) REP_18(M) M(18)
#define REP_20(M) REP_19(M) M(19)
#define REP_21(M) REP_20(M) M(20)
#define REP_22(M) REP_21(M) M(21)
#define REP_23(M) REP_22(M) M(22)
#define REP_24(M) REP_23(M) M(23)
#define REP_25(M) REP_24(M) M(24)
#define REP_26(M) REP_25(M) M(25)
#define REP_27(M) REP_26(M) M(26)
#define REP_28(M) REP_27(M) M(27)

/* sum (16 floats) += weights (16 pairs of bf16) . one pair at `address`, the same for all 16 */
#define DOT(sum, weights, address)                                                                                     \
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*(const int32_t *)(address)))

#define LEAST (relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff()))

/* --- convolution ---------------------------------------------------------------------------------------------------
 */

/* Two neighbouring outputs of a row are a tile. Instead of 2 * kernel products for each row of the kernel and each pair
 * of channels they cost 4 (kernel 3) or 7 (kernel 5): Winograd 1980, F(2, 3), and F(2, 2) for the last two taps of
 * five. With pixels d0 d1 ... under the tile and taps g0 g1 ..., a term is a product of
 *
 *   term   pixels    taps                  adds to the outputs (sum)
 *   0      d0 - d2   g0                    first               (0)
 *   1      d1 + d2   (g0 + g1 + g2) / 2    first and second    (1)
 *   2      d2 - d1   (g0 - g1 + g2) / 2    first, -second      (2)
 *   3      d1 - d3   g2                    -second             (3)
 *   4      d3 - d4   g3                    first               (0)
 *   5      d4        g3 + g4               first and second    (1)
 *   6      d4 - d5   g4                    -second             (3)
 *
 * so the terms of all rows and channels are gathered in four sums a tile. The gradient of the taps takes the same
 * pixels' terms, times dy0, dy0 + dy1, dy0 - dy1 and -dy1 for the sums 0 to 3. */
enum { MOST_TERMS = 7 };
INLINE int terms_of(int kernel) { return kernel == 3 ? 4 : 7; }
static const int SUM_OF[MOST_TERMS] = {0, 1, 2, 3, 0, 1, 3};

INLINE __m512 pixel(const bf16 *x, const bf16 *mask, int at, int W, int C) {
  if ((unsigned)at >= (unsigned)W) return _mm512_setzero_ps();
  __m256i values = _mm256_loadu_si256((const __m256i *)(x + (long)at * C));
  if (mask) {
    __m256i m = _mm256_loadu_si256((const __m256i *)(mask + (long)at * C));
    values = _mm256_maskz_mov_epi16(_mm256_cmpgt_epi16_mask(m, _mm256_setzero_si256()), values);
  }
  return widen(values);
}

/* The terms' pixels of tile t, 16 channels; d holds d0 ... of the tile before and is moved on. */
INLINE void pixel_terms(__m512 *d, const bf16 *x, const bf16 *mask, int t, int W, int C, int padding, int kernel,
                        __m512 *out) {
  for (int j = 0; j < kernel - 1; j++) d[j] = d[j + 2];
  for (int j = kernel - 1; j < kernel + 1; j++) d[j] = pixel(x, mask, 2 * t - padding + j, W, C);
  out[0] = _mm512_sub_ps(d[0], d[2]), out[1] = _mm512_add_ps(d[1], d[2]);
  out[2] = _mm512_sub_ps(d[2], d[1]), out[3] = _mm512_sub_ps(d[1], d[3]);
  if (kernel == 5) out[4] = _mm512_sub_ps(d[3], d[4]), out[5] = d[4], out[6] = _mm512_sub_ps(d[4], d[5]);
}

/* One row of an image -> (tile, term, channel). */
INLINE void term_row(const bf16 *x, const bf16 *mask, int W, int C, int padding, int tiles, const int kernel,
                     bf16 *out) {
  const int terms = terms_of(kernel);
  for (int c = 0; c < C; c += 16) {
    __m512 d[6], term[MOST_TERMS];
    const bf16 *m = mask ? mask + c : 0;
    for (int j = 2; j < kernel + 1; j++) d[j] = pixel(x + c, m, j - 2 - padding, W, C);
    for (int t = 0; t < tiles; t++) {
      pixel_terms(d, x + c, m, t, W, C, padding, kernel, term);
      for (int p = 0; p < terms; p++) put(out + ((long)t * terms + p) * C + c, term[p]);
    }
  }
}

#define DECLARE(i) __m512 a##i##_0 = zero, a##i##_1 = zero, a##i##_2 = zero, a##i##_3 = zero;
#define TERM(i, sum, term) DOT(a##i##_##sum, w##term, from + (i * TERMS + term) * C);
#define STEP_4(i) TERM(i, 0, 0) TERM(i, 1, 1) TERM(i, 2, 2) TERM(i, 3, 3)
#define STEP_3(i) TERM(i, 0, 4) TERM(i, 1, 5) TERM(i, 3, 6)
#define WEIGHT(term) __m512i w##term = _mm512_loadu_si512(w + 32 * term);
#define ROUND_4(T) {WEIGHT(0) WEIGHT(1) WEIGHT(2) WEIGHT(3) REP_##T(STEP_4)}
#define ROUND_7(T)                                                                                                     \
  ROUND_4(T) { WEIGHT(4) WEIGHT(5) WEIGHT(6) REP_##T(STEP_3) }
#define STORE(i)                                                                                                       \
  put(y + 2 * i * outputs,                                                                                             \
      _mm512_max_ps(_mm512_add_ps(_mm512_add_ps(a##i##_0, a##i##_1), _mm512_add_ps(a##i##_2, start)), least));         \
  if (2 * i + 1 < pixels)                                                                                              \
    put(y + (2 * i + 1) * outputs,                                                                                     \
        _mm512_max_ps(_mm512_sub_ps(_mm512_add_ps(a##i##_1, start), _mm512_add_ps(a##i##_2, a##i##_3)), least));

/* T tiles of a row (`pixels` outputs, 2 T or one fewer), 16 output channels, from CI input channels.
 * x: the first tile's terms in the first row of the kernel, rows `pitch` apart; w: (row, channel pair, term, 16, 2). */
typedef void (*tiles_function)(const bf16 *x, long pitch, const bf16 *w, int kernel, long outputs, __m512 start,
                               int relu, int pixels, bf16 *y);
#define TILES(CI, TERMS_, T)                                                                                           \
  static void tiles_##CI##_##TERMS_##_##T(const bf16 *x, long pitch, const bf16 *w, int kernel, long outputs,          \
                                          __m512 start, int relu, int pixels, bf16 *y) {                               \
    enum { C = CI, TERMS = TERMS_ };                                                                                   \
    __m512 zero = _mm512_setzero_ps(), least = LEAST;                                                                  \
    REP_##T(DECLARE) for (int row = 0; row < kernel;                                                                   \
                          row++, x += pitch) for (const bf16 *from = x, *end = x + C; from < end;                      \
                                                  from += 2, w += 32 * TERMS){ROUND_##TERMS_(T)} REP_##T(STORE)        \
  }
#define TILES_T(M, CI, TERMS)                                                                                          \
  M(CI, TERMS, 1) M(CI, TERMS, 2) M(CI, TERMS, 3) M(CI, TERMS, 4) M(CI, TERMS, 5) M(CI, TERMS, 6) M(CI, TERMS, 7)
#define TILES_CI(M, CI) TILES_T(M, CI, 4) TILES_T(M, CI, 7)
#define ALL_TILES(M) TILES_CI(M, 16) TILES_CI(M, 32) TILES_CI(M, 48) TILES_CI(M, 64) TILES_CI(M, 96) TILES_CI(M, 128)
ALL_TILES(TILES)
enum { MOST_TILES = 7 };

static const tiles_function *tiles_functions(int channels, int kernel) {
#define ROW_T(CI, TERMS, T) tiles_##CI##_##TERMS##_##T,
#define ROW(CI) {{TILES_T(ROW_T, CI, 4)}, {TILES_T(ROW_T, CI, 7)}},
  static const tiles_function table[6][2][MOST_TILES] = {ROW(16) ROW(32) ROW(48) ROW(64) ROW(96) ROW(128)};
  return table[channels == 16   ? 0
               : channels == 32 ? 1
               : channels == 48 ? 2
               : channels == 64 ? 3
               : channels == 96 ? 4
                                : 5][kernel == 5];
}

/* bf16 values of scratch for committee_conv: the terms of one image */
EXPORT long committee_conv_scratch(int H, int W, int inputs, int kernel, int padding) {
  return (long)H * ((W + 2 * padding - kernel + 2) / 2) * terms_of(kernel) * inputs;
}

EXPORT void committee_conv(const bf16 *x, const bf16 *mask, const bf16 *weights, const float *bias, bf16 *y, long N,
                           int H, int W, int inputs, int outputs, int kernel, int padding, int relu, bf16 *scratch) {
  int Ho = H + 2 * padding - kernel + 1, Wo = W + 2 * padding - kernel + 1, tiles = (Wo + 1) / 2;
  int terms = terms_of(kernel), parts = (tiles + MOST_TILES - 1) / MOST_TILES;
  long pitch = (long)tiles * terms * inputs, row = (long)W * inputs, image = H * row;
  const tiles_function *functions = tiles_functions(inputs, kernel);
  for (long n = 0; n < N; n++, x += image, y += (long)Ho * Wo * outputs) {
    for (int h = 0; h < H; h++) {
      const bf16 *m = mask ? mask + n * image + h * row : 0;
      if (kernel == 3 && m)
        term_row(x + h * row, m, W, inputs, padding, tiles, 3, scratch + h * pitch);
      else if (kernel == 3)
        term_row(x + h * row, 0, W, inputs, padding, tiles, 3, scratch + h * pitch);
      else
        term_row(x + h * row, m, W, inputs, padding, tiles, 5, scratch + h * pitch);
    }
    for (int c = 0; c < outputs; c += 16) {
      const bf16 *w = weights + (long)c * kernel * inputs * terms;
      __m512 start = bias ? _mm512_loadu_ps(bias + c) : _mm512_setzero_ps();
      for (int part = 0, t = 0; part < parts; part++) {
        int number = (tiles - t + parts - part - 1) / (parts - part), left = Wo - 2 * t;
        for (int h = 0; h < Ho; h++) { /* rows of the kernel that lie on the image */
          int first = padding > h ? padding - h : 0, last = H + padding - h < kernel ? H + padding - h : kernel;
          functions[number - 1](scratch + (h + first - padding) * pitch + (long)t * terms * inputs, pitch,
                                w + 16L * first * inputs * terms, last - first, outputs, start, relu, left,
                                y + ((long)h * Wo + 2 * t) * outputs + c);
        }
        t += number;
      }
    }
  }
}

/* --- convolution: gradient of the weights --------------------------------------------------------------------------
 */

static const uint16_t ZIP[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
INLINE void put_pairs(bf16 *to, __m512 first, __m512 second, __m512i zip) {
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(second, first)));
}

/* The same row of two images -> (term, ..., tile, channel, image), terms `apart` values from each other. */
INLINE void paired_term_row(const bf16 *a, const bf16 *b, int W, int C, int padding, int tiles, const int kernel,
                            long apart, bf16 *out) {
  const int terms = terms_of(kernel);
  __m512i zip = _mm512_loadu_si512(ZIP);
  for (int c = 0; c < C; c += 16) {
    __m512 da[6], db[6], ta[MOST_TERMS], tb[MOST_TERMS];
    for (int j = 2; j < kernel + 1; j++) {
      da[j] = pixel(a + c, 0, j - 2 - padding, W, C);
      db[j] = pixel(b + c, 0, j - 2 - padding, W, C);
    }
    for (int t = 0; t < tiles; t++) {
      pixel_terms(da, a + c, 0, t, W, C, padding, kernel, ta);
      pixel_terms(db, b + c, 0, t, W, C, padding, kernel, tb);
      for (int p = 0; p < terms; p++) put_pairs(out + p * apart + 2 * ((long)t * C + c), ta[p], tb[p], zip);
    }
  }
}

/* The gradients of a row of outputs of two images -> (sum, ..., tile, channel, image); adds to the bias's gradient. */
INLINE void paired_gradient_row(const bf16 *a, const bf16 *ma, const bf16 *b, const bf16 *mb, int W, int C, int tiles,
                                long apart, float *bias_sums, bf16 *out) {
  __m512i zip = _mm512_loadu_si512(ZIP);
  for (int c = 0; c < C; c += 16) {
    __m512 sum = _mm512_setzero_ps();
    for (int t = 0; t < tiles; t++) {
      __m512 a0 = pixel(a + c, ma ? ma + c : 0, 2 * t, W, C), a1 = pixel(a + c, ma ? ma + c : 0, 2 * t + 1, W, C);
      __m512 b0 = pixel(b + c, mb ? mb + c : 0, 2 * t, W, C), b1 = pixel(b + c, mb ? mb + c : 0, 2 * t + 1, W, C);
      __m512 sa = _mm512_add_ps(a0, a1), sb = _mm512_add_ps(b0, b1), zero = _mm512_setzero_ps();
      bf16 *to = out + 2 * ((long)t * C + c);
      put_pairs(to, a0, b0, zip);
      put_pairs(to + apart, sa, sb, zip);
      put_pairs(to + 2 * apart, _mm512_sub_ps(a0, a1), _mm512_sub_ps(b0, b1), zip);
      put_pairs(to + 3 * apart, _mm512_sub_ps(zero, a1), _mm512_sub_ps(zero, b1), zip);
      sum = _mm512_add_ps(sum, _mm512_add_ps(sa, sb));
    }
    if (bias_sums) _mm512_storeu_ps(bias_sums + c, _mm512_add_ps(_mm512_loadu_ps(bias_sums + c), sum));
  }
}

#define LOAD_1 __m512i w0 = _mm512_loadu_si512(w);
#define LOAD_2 LOAD_1 __m512i w1 = _mm512_loadu_si512(w + 32);
#define LOAD_4 LOAD_2 __m512i w2 = _mm512_loadu_si512(w + 64), w3 = _mm512_loadu_si512(w + 96);
#define GDECLARE_1(j) __m512 a##j##_0 = _mm512_loadu_ps(TO(j));
#define GDECLARE_2(j) GDECLARE_1(j) __m512 a##j##_1 = _mm512_loadu_ps(TO(j) + 16);
#define GDECLARE_4(j)                                                                                                  \
  GDECLARE_2(j) __m512 a##j##_2 = _mm512_loadu_ps(TO(j) + 32), a##j##_3 = _mm512_loadu_ps(TO(j) + 48);
#define GSTORE_1(j) _mm512_storeu_ps(TO(j), a##j##_0);
#define GSTORE_2(j) GSTORE_1(j) _mm512_storeu_ps(TO(j) + 16, a##j##_1);
#define GSTORE_4(j)                                                                                                    \
  GSTORE_2(j) _mm512_storeu_ps(TO(j) + 32, a##j##_2);                                                                  \
  _mm512_storeu_ps(TO(j) + 48, a##j##_3);
#define TO(j) (sums + ((j) / B * inputs + (j) % B) * outputs)
#define FROM(j) (((j) / B == 0 ? r0 : (j) / B == 1 ? r1 : (j) / B == 2 ? r2 : (j) / B == 3 ? r3 : r4) + 2 * ((j) % B))
#define GSTEP_1(j) DOT(a##j##_0, w0, FROM(j));
#define GSTEP_2(j) GSTEP_1(j) DOT(a##j##_1, w1, FROM(j));
#define GSTEP_4(j)                                                                                                     \
  GSTEP_2(j) DOT(a##j##_2, w2, FROM(j));                                                                               \
  DOT(a##j##_3, w3, FROM(j));

/* Adds to one term's sums (row of the kernel, input, output): all KERNEL rows, IN input and V * 16 output channels,
 * over `pairs` pairs of images of H rows of `tiles` tiles. N = KERNEL * IN. x: a pair has `tall` rows, terms apart. */
typedef void (*gradient_function)(const bf16 *x, const bf16 *dy, float *sums, long pairs, long x_pair, long dy_pair,
                                  int H, int tiles, long inputs, long outputs);
#define GRADIENT(KERNEL, IN, V, N)                                                                                     \
  static void gradient_##KERNEL##_##V(const bf16 *x, const bf16 *dy, float *sums, long pairs, long x_pair,             \
                                      long dy_pair, int H, int tiles, long inputs, long outputs) {                     \
    enum { B = IN };                                                                                                   \
    long pitch = 2L * tiles * inputs;                                                                                  \
    REP_##N(GDECLARE_##V) for (long n = 0; n < pairs; n++) {                                                           \
      const bf16 *w = dy + n * dy_pair;                                                                                \
      for (int h = 0; h < H; h++) {                                                                                    \
        const bf16 *r0 = x + n * x_pair + h * pitch, *r1 = r0 + pitch, *r2 = r1 + pitch, *r3 = r2 + pitch,             \
                   *r4 = r3 + pitch;                                                                                   \
        (void)r3, (void)r4;                                                                                            \
        for (int t = 0; t < tiles; t++, w += 2 * outputs) {                                                            \
          LOAD_##V REP_##N(GSTEP_##V) r0 += 2 * inputs, r1 += 2 * inputs, r2 += 2 * inputs, r3 += 2 * inputs,          \
              r4 += 2 * inputs;                                                                                        \
        }                                                                                                              \
      }                                                                                                                \
    }                                                                                                                  \
    REP_##N(GSTORE_##V)                                                                                                \
  }
GRADIENT(3, 8, 1, 24)
GRADIENT(3, 4, 2, 12)
GRADIENT(3, 2, 4, 6)
GRADIENT(5, 4, 1, 20)
GRADIENT(5, 2, 2, 10)
GRADIENT(5, 1, 4, 5)
static const struct {
  gradient_function function;
  int inputs;
} GRADIENTS[2][5] = {
    {{0, 0}, {gradient_3_1, 8}, {gradient_3_2, 4}, {0, 0}, {gradient_3_4, 2}},
    {{0, 0}, {gradient_5_1, 4}, {gradient_5_2, 2}, {0, 0}, {gradient_5_4, 1}},
};
INLINE int vectors_of(int channels_left) { return channels_left >= 64 ? 4 : channels_left >= 32 ? 2 : 1; }

/* Pairs of images that are worked on together, so that the sums are seldom fetched. */
static long together(int Ho, int tiles) { return Ho * tiles >= 96 ? 1 : (95 + Ho * tiles) / (Ho * tiles); }

/* Values of bf16 that committee_conv_gradient needs as scratch. */
EXPORT long committee_conv_gradient_scratch(int H, int W, int inputs, int outputs, int kernel, int padding) {
  int tall = H + 2 * padding, Ho = tall - kernel + 1, tiles = (W + 2 * padding - kernel + 2) / 2;
  return 2L * together(Ho, tiles) * tiles * ((long)terms_of(kernel) * tall * inputs + 4L * Ho * outputs) +
         (W * inputs > W * outputs ? W * inputs : W * outputs) + (W + 2 * padding) * outputs;
}

/* sums (term, kernel, inputs, outputs) and bias_sums (outputs), or none, are added to. */
EXPORT void committee_conv_gradient(const bf16 *x, const bf16 *dy, const bf16 *mask, float *sums, float *bias_sums,
                                    long N, int H, int W, int inputs, int outputs, int kernel, int padding,
                                    bf16 *scratch) {
  int tall = H + 2 * padding, Ho = tall - kernel + 1, Wo = W + 2 * padding - kernel + 1, tiles = (Wo + 1) / 2;
  int terms = terms_of(kernel);
  long group = together(Ho, tiles), row = (long)W * inputs, image = H * row, dy_row = (long)Wo * outputs,
       result = Ho * dy_row;
  long x_row = 2L * tiles * inputs, x_pair = tall * x_row, x_term = group * x_pair;
  long d_row = 2L * tiles * outputs, d_pair = Ho * d_row, d_sum = group * d_pair;
  bf16 *x_terms = scratch, *dy_sums = x_terms + terms * x_term, *nothing = dy_sums + 4 * d_sum;
  memset(nothing, 0, sizeof(bf16) * (row > dy_row ? row : dy_row));
  for (long n = 0; n < N; n += 2 * group) {
    long pairs = (N - n + 1) / 2 < group ? (N - n + 1) / 2 : group;
    for (long pair = 0; pair < pairs; pair++) {
      const bf16 *a = x + (n + 2 * pair) * image;
      int second = n + 2 * pair + 1 < N; /* the last pair may lack it */
      for (int r = 0; r < tall; r++) {
        int h = r - padding, inside = h >= 0 && h < H;
        bf16 *to = x_terms + pair * x_pair + r * x_row;
        if (!inside)
          for (int p = 0; p < terms; p++) memset(to + p * x_term, 0, sizeof(bf16) * x_row);
        else if (kernel == 3)
          paired_term_row(a + h * row, second ? a + image + h * row : nothing, W, inputs, padding, tiles, 3, x_term,
                          to);
        else
          paired_term_row(a + h * row, second ? a + image + h * row : nothing, W, inputs, padding, tiles, 5, x_term,
                          to);
      }
      for (int h = 0; h < Ho; h++) {
        long at = (n + 2 * pair) * result + h * dy_row;
        bf16 *to = dy_sums + pair * d_pair + h * d_row;
        if (mask)
          paired_gradient_row(dy + at, mask + at, second ? dy + at + result : nothing,
                              second ? mask + at + result : nothing, Wo, outputs, tiles, d_sum, bias_sums, to);
        else
          paired_gradient_row(dy + at, 0, second ? dy + at + result : nothing, 0, Wo, outputs, tiles, d_sum, bias_sums,
                              to);
      }
    }
    for (int p = 0; p < terms; p++)
      for (int c = 0, vectors; c < outputs; c += 16 * vectors) {
        vectors = vectors_of(outputs - c);
        int step = GRADIENTS[kernel == 5][vectors].inputs;
        for (int ci = 0; ci < inputs; ci += step)
          GRADIENTS[kernel == 5][vectors].function(x_terms + p * x_term + 2 * ci, dy_sums + SUM_OF[p] * d_sum + 2 * c,
                                                   sums + ((long)p * kernel * inputs + ci) * outputs + c, pairs, x_pair,
                                                   d_pair, Ho, tiles, inputs, outputs);
      }
  }
}

/* --- convolution: weights ------------------------------------------------------------------------------------------
 */

INLINE void tap_terms(const __m512 *g, int kernel, __m512 *out) {
  __m512 half = _mm512_set1_ps(0.5f), outer = _mm512_mul_ps(half, _mm512_add_ps(g[0], g[2])),
         inner = _mm512_mul_ps(half, g[1]);
  out[0] = g[0], out[1] = _mm512_add_ps(outer, inner), out[2] = _mm512_sub_ps(outer, inner), out[3] = g[2];
  if (kernel == 5) out[4] = g[3], out[5] = _mm512_add_ps(g[3], g[4]), out[6] = g[4];
}

/* w (outputs, kernel, kernel, inputs) float32 -> forward (outputs / 16, kernel, inputs / 2, term, 16, 2) and, turned
 * round for the gradient of the input, backward (inputs / 16, kernel, outputs / 2, term, 16, 2). */
EXPORT void committee_pack(const float *w, bf16 *forward, bf16 *backward, int inputs, int outputs, int kernel) {
  int terms = terms_of(kernel);
  __m512i zip = _mm512_loadu_si512(ZIP);
  for (int o = 0; o < outputs; o += 2)
    for (int row = 0; row < kernel; row++)
      for (int c = 0; c < inputs; c += 16) {
        __m512 g[2][5], turned[2][5], t[2][MOST_TERMS], back[2][MOST_TERMS];
        for (int i = 0; i < 2; i++) {
          for (int k = 0; k < kernel; k++)
            turned[i][kernel - 1 - k] = g[i][k] =
                _mm512_loadu_ps(w + (((long)(o + i) * kernel + row) * kernel + k) * inputs + c);
          tap_terms(g[i], kernel, t[i]), tap_terms(turned[i], kernel, back[i]);
        }
        for (int p = 0; p < terms; p++) {
          long at = (((long)(c / 16) * kernel + kernel - 1 - row) * (outputs / 2) + o / 2) * terms + p;
          put_pairs(backward + 32 * at, back[0][p], back[1][p], zip);
          uint32_t pairs[16];
          _mm512_storeu_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(t[1][p], t[0][p]));
          uint32_t *to = (uint32_t *)forward +
                         ((((long)(o / 16) * kernel + row) * (inputs / 2) + c / 2) * terms + p) * 16 + o % 16;
          for (int q = 0; q < 8; q++, to += 16 * terms) to[0] = pairs[q], to[1] = pairs[8 + q];
        }
      }
}

/* sums (term, kernel, inputs, outputs) -> gradient (outputs, kernel, kernel, inputs). */
EXPORT void committee_unpack(const float *sums, float *gradient, int inputs, int outputs, int kernel) {
  long apart = (long)kernel * inputs * outputs;
  for (int row = 0; row < kernel; row++)
    for (int c = 0; c < inputs; c++)
      for (int o = 0; o < outputs; o += 16) {
        const float *n = sums + ((long)row * inputs + c) * outputs + o;
        __m512 s[MOST_TERMS], g[5], half = _mm512_set1_ps(0.5f);
        for (int p = 0; p < terms_of(kernel); p++) s[p] = _mm512_loadu_ps(n + p * apart);
        __m512 both = _mm512_mul_ps(half, _mm512_add_ps(s[1], s[2]));
        g[0] = _mm512_add_ps(s[0], both), g[1] = _mm512_mul_ps(half, _mm512_sub_ps(s[1], s[2])),
        g[2] = _mm512_add_ps(both, s[3]);
        if (kernel == 5) g[3] = _mm512_add_ps(s[4], s[5]), g[4] = _mm512_add_ps(s[5], s[6]);
        for (int k = 0; k < kernel; k++) {
          float values[16], *to = gradient + (((long)o * kernel + row) * kernel + k) * inputs + c;
          _mm512_storeu_ps(values, g[k]);
          for (int i = 0; i < 16; i++, to += (long)kernel * kernel * inputs) *to = values[i];
        }
      }
}

/* (taps, outputs) -> (outputs, taps) */
EXPORT void committee_turn(const float *sums, float *gradient, int taps, int outputs) {
  for (int o = 0; o < outputs; o++)
    for (int t = 0; t < taps; t++) gradient[(long)o * taps + t] = sums[(long)t * outputs + o];
}

/* The values where the mask is > 0, zeros elsewhere; a multiple of 16 of them. */
static void masked(const bf16 *x, const bf16 *mask, long values, bf16 *out) {
  for (long i = 0; i < values; i += 16) {
    __m256i m = _mm256_loadu_si256((const __m256i *)(mask + i));
    __mmask16 keep = _mm256_cmpgt_epi16_mask(m, _mm256_setzero_si256());
    _mm256_storeu_si256((__m256i *)(out + i), _mm256_maskz_loadu_epi16(keep, x + i));
  }
}

/* --- the first convolution, in float32 from pixels -----------------------------------------------------------------
 */

/* (pixel - offset) / scale of one image in a frame of zeros */
static void scaled_frame(const float *x, int H, int W, int C, int padding, float offset, float scale, float *out) {
  long row = (long)W * C, pitch = (long)(W + 2 * padding) * C, before = (long)padding * C;
  memset(out, 0, sizeof(float) * pitch * padding);
  out += pitch * padding;
  for (int h = 0; h < H; h++, x += row, out += pitch) {
    memset(out, 0, sizeof(float) * before);
    for (long i = 0; i < row; i++) out[before + i] = (x[i] - offset) / scale;
    memset(out + before + row, 0, sizeof(float) * (pitch - row - before));
  }
  memset(out, 0, sizeof(float) * pitch * padding);
}

#define SDECLARE(i) __m512 a##i = start;
#define SSTEP(i) a##i = _mm512_fmadd_ps(weight, _mm512_set1_ps(from[i * C]), a##i);
#define SSTORE(i) put(y + i * outputs, _mm512_max_ps(a##i, least));
/* P pixels of 16 channels from CI input channels; w: (taps, outputs) from the first of these channels on */
typedef void (*stem_function)(const float *x, long pitch, const float *w, int kernel, long outputs, __m512 start,
                              int relu, bf16 *y);
#define STEM(CI, P)                                                                                                    \
  static void stem_##CI##_##P(const float *x, long pitch, const float *w, int kernel, long outputs, __m512 start,      \
                              int relu, bf16 *y) {                                                                     \
    enum { C = CI };                                                                                                   \
    REP_##P(SDECLARE) for (int row = 0; row < kernel;                                                                  \
                           row++, x += pitch) for (const float *from = x, *end = x + kernel * C; from < end;           \
                                                   from++, w += outputs) {                                             \
      __m512 weight = _mm512_loadu_ps(w);                                                                              \
      REP_##P(SSTEP)                                                                                                   \
    }                                                                                                                  \
    __m512 least = LEAST;                                                                                              \
    REP_##P(SSTORE)                                                                                                    \
  }
#define STEMS_OF(M, CI) M(CI, 14) M(CI, 12) M(CI, 8) M(CI, 4) M(CI, 1)
#define STEMS(M) STEMS_OF(M, 1) STEMS_OF(M, 3)
STEMS(STEM)
static stem_function widest_stem(int channels, int left, int *taken) {
  static const struct {
    int channels, pixels;
    stem_function function;
  } table[] = {
#define STEM_ROW(CI, P) {CI, P, stem_##CI##_##P},
      STEMS(STEM_ROW)};
  for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].channels == channels && table[i].pixels <= left) {
      *taken = table[i].pixels;
      return table[i].function;
    }
  return 0;
}

/* weights (kernel, kernel, inputs, outputs) float32; scratch: one framed image of floats */
EXPORT void committee_stem(const float *x, float offset, float scale, const float *weights, const float *bias, bf16 *y,
                           long N, int H, int W, int inputs, int outputs, int kernel, int padding, int relu,
                           float *scratch) {
  int width = W + 2 * padding, Ho = H + 2 * padding - kernel + 1, Wo = width - kernel + 1;
  long pitch = (long)width * inputs;
  for (long n = 0; n < N; n++, x += (long)H * W * inputs, y += (long)Ho * Wo * outputs) {
    scaled_frame(x, H, W, inputs, padding, offset, scale, scratch);
    for (int c = 0; c < outputs; c += 16)
      for (int w = 0, taken = 1; w < Wo; w += taken) {
        stem_function block = widest_stem(inputs, Wo - w, &taken);
        __m512 start = bias ? _mm512_loadu_ps(bias + c) : _mm512_setzero_ps();
        for (int h = 0; h < Ho; h++)
          block(scratch + h * pitch + (long)w * inputs, pitch, weights + c, kernel, outputs, start, relu,
                y + ((long)h * Wo + w) * outputs + c);
      }
  }
}

#define TDECLARE(t) __m512 a##t = _mm512_loadu_ps(sums + (first + t) * outputs);
#define TSTEP(t) a##t = _mm512_fmadd_ps(d, _mm512_set1_ps(from[t]), a##t);
#define TSTORE(t) _mm512_storeu_ps(sums + (first + t) * outputs, a##t);
/* T neighbouring taps of one row of the kernel, 16 channels, one image */
#define TAPS(T)                                                                                                        \
  static void taps_##T(const float *x, long pitch, const bf16 *dy, float *sums, long first, int H, int W, long inputs, \
                       long outputs) {                                                                                 \
    REP_##T(TDECLARE) for (int h = 0; h < H; h++, x += pitch) for (const float *from = x, *end = x + W * inputs;       \
                                                                   from < end; from += inputs, dy += outputs) {        \
      __m512 d = get(dy);                                                                                              \
      REP_##T(TSTEP)                                                                                                   \
    }                                                                                                                  \
    REP_##T(TSTORE)                                                                                                    \
  }
TAPS(3)
TAPS(5)
TAPS(9)
TAPS(15)

/* sums (kernel, kernel, inputs, outputs); scratch: one framed image of floats, then one image of dy in bf16 */
EXPORT void committee_stem_gradient(const float *x, float offset, float scale, const bf16 *dy, const bf16 *mask,
                                    float *sums, float *bias_sums, long N, int H, int W, int inputs, int outputs,
                                    int kernel, int padding, float *scratch) {
  int width = W + 2 * padding, Ho = H + 2 * padding - kernel + 1, Wo = width - kernel + 1, taps = kernel * inputs;
  long pitch = (long)width * inputs, result = (long)Ho * Wo * outputs;
  bf16 *kept = (bf16 *)(scratch + pitch * (H + 2 * padding));
  for (long n = 0; n < N; n++, x += (long)H * W * inputs) {
    scaled_frame(x, H, W, inputs, padding, offset, scale, scratch);
    const bf16 *d = dy + n * result;
    if (mask) masked(d, mask + n * result, result, kept), d = kept;
    for (int c = 0; c < outputs; c += 16) {
      for (int row = 0; row < kernel; row++)
        (taps == 3   ? taps_3
         : taps == 5 ? taps_5
         : taps == 9
             ? taps_9
             : taps_15)(scratch + row * pitch, pitch, d + c, sums + c, (long)row * taps, Ho, Wo, inputs, outputs);
      if (bias_sums) {
        __m512 sum = _mm512_loadu_ps(bias_sums + c);
        for (long p = 0; p < (long)Ho * Wo; p++) sum = _mm512_add_ps(sum, get(d + p * outputs + c));
        _mm512_storeu_ps(bias_sums + c, sum);
      }
    }
  }
}

/* --- normalisation and relu ----------------------------------------------------------------------------------------
 */

enum { BLOCK_ROWS = 256 }; /* rows are summed in float32 so many at a time, and these sums in float64 */

INLINE void add_halves(double *to, __m512 sums) {
  _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), _mm512_cvtps_pd(_mm512_castps512_ps256(sums))));
  _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(sums, 1))));
}

/* x (rows, channels): z = max(factor * x + shift, 0 or nothing), a channel at a time */
EXPORT void committee_scale(const bf16 *x, const float *factor, const float *shift, bf16 *z, long rows, int channels,
                            int relu) {
  __m512 least = LEAST;
  for (int c = 0; c < channels; c += 16) {
    __m512 f = _mm512_loadu_ps(factor + c), s = _mm512_loadu_ps(shift + c);
    for (long r = 0; r < rows; r++)
      put(z + r * channels + c, _mm512_max_ps(_mm512_fmadd_ps(f, get(x + r * channels + c), s), least));
  }
}

/* Batch normalisation: statistics (mean, variance, factor, shift, each of all channels) are written, z = factor * x +
 * shift; the running mean and (unbiased) variance move by `share`. sums: 2 * channels of scratch. */
EXPORT void committee_norm(const bf16 *x, const float *gamma, const float *beta, float epsilon, float share,
                           float *running_mean, float *running_variance, double *sums, float *statistics, bf16 *z,
                           long rows, int channels, int relu) {
  memset(sums, 0, sizeof(double) * 2 * channels);
  for (long begin = 0; begin < rows; begin += BLOCK_ROWS) {
    long end = begin + BLOCK_ROWS < rows ? begin + BLOCK_ROWS : rows;
    for (int c = 0; c < channels; c += 16) {
      __m512 sum = _mm512_setzero_ps(), squares = sum;
      for (long r = begin; r < end; r++) {
        __m512 v = get(x + r * channels + c);
        sum = _mm512_add_ps(sum, v), squares = _mm512_fmadd_ps(v, v, squares);
      }
      add_halves(sums + c, sum), add_halves(sums + channels + c, squares);
    }
  }
  float *factor = statistics + 2 * channels, *shift = factor + channels;
  for (int c = 0; c < channels; c++) {
    double mean = sums[c] / rows, variance = sums[channels + c] / rows - mean * mean;
    variance = variance > 0 ? variance : 0;
    statistics[c] = mean, statistics[channels + c] = variance;
    factor[c] = gamma[c] / sqrt(variance + epsilon), shift[c] = beta[c] - mean * factor[c];
    running_mean[c] += share * ((float)mean - running_mean[c]);
    running_variance[c] += share * ((float)(variance * rows / (rows > 1 ? rows - 1 : 1)) - running_variance[c]);
  }
  committee_scale(x, factor, shift, z, rows, channels, relu);
}

/* dgamma, dbeta, dx from dz, which counts where relu let z through; sums: 2 * channels, lines: 2 * channels of scratch
 */
EXPORT void committee_norm_gradient(const bf16 *x, const bf16 *dz, const float *statistics, float epsilon, double *sums,
                                    float *lines, float *dgamma, float *dbeta, bf16 *dx, long rows, int channels,
                                    int relu) {
  const float *factor = statistics + 2 * channels, *shift = factor + channels;
  __m512 least = LEAST;
  memset(sums, 0, sizeof(double) * 2 * channels);
  for (long begin = 0; begin < rows; begin += BLOCK_ROWS) {
    long end = begin + BLOCK_ROWS < rows ? begin + BLOCK_ROWS : rows;
    for (int c = 0; c < channels; c += 16) {
      __m512 f = _mm512_loadu_ps(factor + c), s = _mm512_loadu_ps(shift + c);
      __m512 sum = _mm512_setzero_ps(), products = sum;
      for (long r = begin; r < end; r++) {
        __m512 v = get(x + r * channels + c);
        __mmask16 on = _mm512_cmp_ps_mask(_mm512_fmadd_ps(f, v, s), least, _CMP_GT_OQ);
        __m512 d = _mm512_maskz_mov_ps(on, get(dz + r * channels + c));
        sum = _mm512_add_ps(sum, d), products = _mm512_fmadd_ps(d, v, products);
      }
      add_halves(sums + c, sum), add_halves(sums + channels + c, products);
    }
  }
  float *slope = lines, *constant = lines + channels;
  for (int c = 0; c < channels; c++) {
    double mean = statistics[c], scatter = 1 / sqrt((double)statistics[channels + c] + epsilon);
    double total = sums[c], product = scatter * (sums[channels + c] - mean * total);
    dgamma[c] = product, dbeta[c] = total;
    double along = -factor[c] * scatter * product / rows;
    slope[c] = along, constant[c] = -(mean * along + factor[c] * total / rows);
  }
  for (int c = 0; c < channels; c += 16) {
    __m512 f = _mm512_loadu_ps(factor + c), s = _mm512_loadu_ps(shift + c);
    __m512 p = _mm512_loadu_ps(slope + c), q = _mm512_loadu_ps(constant + c);
    for (long r = 0; r < rows; r++) {
      __m512 v = get(x + r * channels + c);
      __mmask16 on = _mm512_cmp_ps_mask(_mm512_fmadd_ps(f, v, s), least, _CMP_GT_OQ);
      __m512 d = _mm512_maskz_mov_ps(on, get(dz + r * channels + c));
      put(dx + r * channels + c, _mm512_fmadd_ps(f, d, _mm512_fmadd_ps(p, v, q)));
    }
  }
}

/* --- max pooling ---------------------------------------------------------------------------------------------------
 */

EXPORT void committee_pool(const bf16 *x, bf16 *y, long N, int H, int W, int C, int down, int across) {
  int Ho = H / down, Wo = W / across;
  for (long n = 0; n < N; n++, x += (long)H * W * C)
    for (int h = 0; h < Ho; h++)
      for (int w = 0; w < Wo; w++, y += C)
        for (int c = 0; c < C; c += 16) {
          const bf16 *from = x + ((long)h * down * W + w * across) * C + c;
          __m512 most = get(from);
          for (int i = 0; i < down; i++)
            for (int j = 0; j < across; j++) most = _mm512_max_ps(most, get(from + ((long)i * W + j) * C));
          put(y + c, most);
        }
}

/* The gradient goes to the first largest value of a window. */
EXPORT void committee_pool_gradient(const bf16 *x, const bf16 *y, const bf16 *dy, bf16 *dx, long N, int H, int W, int C,
                                    int down, int across) {
  int Ho = H / down, Wo = W / across;
  for (long n = 0; n < N; n++, x += (long)H * W * C, dx += (long)H * W * C) {
    if (H % down || W % across) memset(dx, 0, sizeof(bf16) * H * W * C);
    for (int h = 0; h < Ho; h++)
      for (int w = 0; w < Wo; w++, y += C, dy += C)
        for (int c = 0; c < C; c += 16) {
          long at = ((long)h * down * W + w * across) * C + c;
          __m512 most = get(y + c);
          __m256i d = _mm256_loadu_si256((const __m256i *)(dy + c));
          __mmask16 open = 0xffff;
          for (int i = 0; i < down; i++)
            for (int j = 0; j < across; j++) {
              long place = at + ((long)i * W + j) * C;
              __mmask16 here = _mm512_mask_cmp_ps_mask(open, get(x + place), most, _CMP_EQ_OQ);
              _mm256_storeu_si256((__m256i *)(dx + place), _mm256_maskz_mov_epi16(here, d));
              open &= (__mmask16)~here;
            }
        }
  }
}

/* --- dropout -------------------------------------------------------------------------------------------------------
 */

INLINE uint64_t split_mix(uint64_t *state) { /* Steele, Lea & Flood 2014 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* 32 values times factor where a bit is set, 0 elsewhere */
INLINE void keep_32(const bf16 *x, uint32_t bits, __mmask32 in, __m512 factor, bf16 *y) {
  __m512i values = _mm512_maskz_loadu_epi16(in & bits, x);
  __m512 low = _mm512_mul_ps(widen(_mm512_castsi512_si256(values)), factor);
  __m512 high = _mm512_mul_ps(widen(_mm512_extracti64x4_epi64(values, 1)), factor);
  _mm512_mask_storeu_epi16(y, in, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* y = factor * x, or 0 with probability dropped / 65536; a bit for each value kept goes to bits. Eight streams of
 * xoroshiro128++ (Blackman & Vigna 2019) side by side, from one key. */
EXPORT void committee_dropout(const bf16 *x, bf16 *y, uint32_t *bits, long n, long key, int dropped, float factor) {
  uint64_t state = (uint64_t)key, seeds[16];
  for (int i = 0; i < 16; i++) seeds[i] = split_mix(&state);
  __m512i s0 = _mm512_loadu_si512(seeds), s1 = _mm512_loadu_si512(seeds + 8), limit = _mm512_set1_epi16((short)dropped);
  __m512 by = _mm512_set1_ps(factor);
  for (long i = 0; i < n; i += 32) {
    __m512i drawn = _mm512_add_epi64(_mm512_rol_epi64(_mm512_add_epi64(s0, s1), 17), s0);
    s1 = _mm512_xor_si512(s1, s0);
    s0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_rol_epi64(s0, 49), s1), _mm512_slli_epi64(s1, 21));
    s1 = _mm512_rol_epi64(s1, 28);
    bits[i / 32] = _mm512_cmpge_epu16_mask(drawn, limit);
    keep_32(x + i, bits[i / 32], n - i >= 32 ? 0xffffffffu : (1u << (n - i)) - 1, by, y + i);
  }
}

EXPORT void committee_dropout_gradient(const bf16 *dy, const uint32_t *bits, bf16 *dx, long n, float factor) {
  for (long i = 0; i < n; i += 32)
    keep_32(dy + i, bits[i / 32], n - i >= 32 ? 0xffffffffu : (1u << (n - i)) - 1, _mm512_set1_ps(factor), dx + i);
}

/* --- optimisers ----------------------------------------------------------------------------------------------------
 */

#define EACH_16(n)                                                                                                     \
  for (long i = 0; i < n; i += 16)                                                                                     \
    for (__mmask16 in = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1), once = 1; once; once = 0)
#define TAKE(from) _mm512_maskz_loadu_ps(in, from + i)
#define GIVE(to, values) _mm512_mask_storeu_ps(to + i, in, values)

/* Nadam: p -= g_rate * g / d + m_rate * m / d with d = sqrt(v / correction) + epsilon, m and v running means of g, g^2
 */
EXPORT void committee_nadam(float *p, const float *g, float *m, float *v, long n, float g_rate, float m_rate,
                            float beta1, float beta2, float correction, float epsilon, float decay) {
  __m512 b1 = _mm512_set1_ps(1 - beta1), b2 = _mm512_set1_ps(1 - beta2), e = _mm512_set1_ps(epsilon),
         by = _mm512_set1_ps(1 / correction);
  EACH_16(n) {
    __m512 value = TAKE(p), slope = _mm512_fmadd_ps(_mm512_set1_ps(decay), value, TAKE(g)), mean = TAKE(m),
           square = TAKE(v);
    mean = _mm512_fmadd_ps(b1, _mm512_sub_ps(slope, mean), mean);
    square = _mm512_fmadd_ps(b2, _mm512_fmsub_ps(slope, slope, square), square);
    __m512 way = _mm512_fmadd_ps(_mm512_set1_ps(g_rate), slope, _mm512_mul_ps(_mm512_set1_ps(m_rate), mean));
    value = _mm512_sub_ps(value, _mm512_div_ps(way, _mm512_add_ps(_mm512_sqrt_ps(_mm512_mul_ps(square, by)), e)));
    GIVE(p, value), GIVE(m, mean), GIVE(v, square);
  }
}

/* Adadelta: delta = g * sqrt(a + epsilon) / sqrt(v + epsilon), p -= rate * delta, v and a running means of g^2, delta^2
 */
EXPORT void committee_adadelta(float *p, const float *g, float *v, float *a, long n, float rate, float rho,
                               float epsilon, float decay) {
  __m512 share = _mm512_set1_ps(1 - rho), e = _mm512_set1_ps(epsilon);
  EACH_16(n) {
    __m512 value = TAKE(p), slope = _mm512_fmadd_ps(_mm512_set1_ps(decay), value, TAKE(g)), square = TAKE(v),
           moved = TAKE(a);
    square = _mm512_fmadd_ps(share, _mm512_fmsub_ps(slope, slope, square), square);
    __m512 delta =
        _mm512_mul_ps(slope, _mm512_sqrt_ps(_mm512_div_ps(_mm512_add_ps(moved, e), _mm512_add_ps(square, e))));
    moved = _mm512_fmadd_ps(share, _mm512_fmsub_ps(delta, delta, moved), moved);
    GIVE(p, _mm512_fnmadd_ps(_mm512_set1_ps(rate), delta, value)), GIVE(v, square), GIVE(a, moved);
  }
}

/* --- affine maps of images -----------------------------------------------------------------------------------------
 */

/* y (pixel) = x at matrix (2, 3) * pixel, both measured from the image's centre, bilinear; outside x lies 0, or (edge)
 * its nearest pixel. */
EXPORT void committee_warp(const float *x, const float *matrices, const float *bends, float *y, long N, int H, int W,
                           int C, int edge) {
  __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1), right = _mm512_set1_ps(W - 1),
         bottom = _mm512_set1_ps(H - 1);
  __m512i width = _mm512_set1_epi32(W), height = _mm512_set1_epi32(H), none = _mm512_setzero_si512(),
          single = _mm512_set1_epi32(1);
  const __m512 lane = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const float middle_x = (W - 1) / 2.0f, middle_y = (H - 1) / 2.0f;
  for (long n = 0; n < N; n++, x += (long)H * W * C, matrices += 6)
    for (int h = 0; h < H; h++) {
      float across = matrices[1] * (h - middle_y) + matrices[2] + middle_x,
            down = matrices[4] * (h - middle_y) + matrices[5] + middle_y;
      for (int w = 0; w < W; w += 16) {
        __mmask16 in = W - w >= 16 ? 0xffff : (__mmask16)((1u << (W - w)) - 1);
        __m512 from = _mm512_add_ps(lane, _mm512_set1_ps(w - middle_x));
        __m512 sx = _mm512_fmadd_ps(_mm512_set1_ps(matrices[0]), from, _mm512_set1_ps(across));
        __m512 sy = _mm512_fmadd_ps(_mm512_set1_ps(matrices[3]), from, _mm512_set1_ps(down));
        if (bends) {
          const float *bend = bends + (n * 2 * H + h) * (long)W + w;
          sx = _mm512_add_ps(sx, _mm512_maskz_loadu_ps(in, bend));
          sy = _mm512_add_ps(sy, _mm512_maskz_loadu_ps(in, bend + (long)H * W));
        }
        if (edge)
          sx = _mm512_min_ps(_mm512_max_ps(sx, zero), right), sy = _mm512_min_ps(_mm512_max_ps(sy, zero), bottom);
        else
          sx = _mm512_min_ps(_mm512_max_ps(sx, _mm512_set1_ps(-2)), _mm512_set1_ps(W + 1)),
          sy = _mm512_min_ps(_mm512_max_ps(sy, _mm512_set1_ps(-2)), _mm512_set1_ps(H + 1));
        __m512 fx = _mm512_roundscale_ps(sx, 9), fy = _mm512_roundscale_ps(sy, 9); /* floor */
        __m512i x0 = _mm512_cvtps_epi32(fx), y0 = _mm512_cvtps_epi32(fy), x1 = _mm512_add_epi32(x0, single),
                y1 = _mm512_add_epi32(y0, single);
        __m512 tx = _mm512_sub_ps(sx, fx), ty = _mm512_sub_ps(sy, fy), ux = _mm512_sub_ps(one, tx),
               uy = _mm512_sub_ps(one, ty);
        __mmask16 inx0 = _mm512_cmpge_epi32_mask(x0, none) & _mm512_cmplt_epi32_mask(x0, width),
                  inx1 = _mm512_cmpge_epi32_mask(x1, none) & _mm512_cmplt_epi32_mask(x1, width);
        __mmask16 iny0 = in & _mm512_cmpge_epi32_mask(y0, none) & _mm512_cmplt_epi32_mask(y0, height),
                  iny1 = in & _mm512_cmpge_epi32_mask(y1, none) & _mm512_cmplt_epi32_mask(y1, height);
        __m512i channels = _mm512_set1_epi32(C),
                at0 = _mm512_mullo_epi32(_mm512_add_epi32(_mm512_mullo_epi32(y0, width), x0), channels);
        __m512i at1 = _mm512_add_epi32(at0, _mm512_mullo_epi32(width, channels));
        for (int c = 0; c < C; c++) {
          __m512 v00 = _mm512_mask_i32gather_ps(zero, inx0 & iny0, at0, x + c, 4),
                 v01 = _mm512_mask_i32gather_ps(zero, inx1 & iny0, at0, x + C + c, 4);
          __m512 v10 = _mm512_mask_i32gather_ps(zero, inx0 & iny1, at1, x + c, 4),
                 v11 = _mm512_mask_i32gather_ps(zero, inx1 & iny1, at1, x + C + c, 4);
          __m512 top = _mm512_fmadd_ps(v01, tx, _mm512_mul_ps(v00, ux)),
                 low = _mm512_fmadd_ps(v11, tx, _mm512_mul_ps(v10, ux));
          __m512 value = _mm512_fmadd_ps(low, ty, _mm512_mul_ps(top, uy));
          float *to = y + ((n * H + h) * (long)W + w) * C + c;
          if (C == 1)
            _mm512_mask_storeu_ps(to, in, value);
          else {
            float values[16];
            _mm512_storeu_ps(values, value);
            for (int i = 0; i < 16 && w + i < W; i++) to[(long)i * C] = values[i];
          }
        }
      }
    }
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
