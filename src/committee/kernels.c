/* The inner loops of training on CPUs with AVX-512 bfloat16: convolution, normalisation, pooling.
 *
 * Images are (image, height, width, channel), values bfloat16, sums float32. Everything runs in the calling thread and
 * adds in a fixed order, so equal calls give equal bits. kernels.py wraps each function and says what it does; on other
 * CPUs this file compiles to an empty module and torch does the work. The products of convolutions are in
 * convolution.h, which is included twice: made of bfloat16, and of float32.
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

/* Whether a product of two bfloat16 pairs is faster than two products of floats. It is on AMD's (Zen 4); on a Xeon
 * (Emerald Rapids) 16 of them take .88 ns, 16 of the two .38 ns. Not measured here, so that bits depend on no clock. */
EXPORT int committee_fast_pairs(void) {
  __builtin_cpu_init();
  return !__builtin_cpu_is("intel");
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
#define REP_0(M)
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

#define LEAST (relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff()))

/* --- convolution ---------------------------------------------------------------------------------------------------
 */

/* Neighbouring outputs of a row are a tile. A tile of m outputs, of a kernel with k taps, is cheaper as a product of
 * polynomials that is known by its values at n = m + k - 1 points (Toom and Cook; Winograd 1980): n terms for a row of
 * the kernel and a pair of channels instead of m * k products. The points are 0, infinity, A, -A, B, -B, these six for
 * a full tile (4 outputs where k is 3, 2 where k is 5) and the first of them for what is left of a row. So
 *
 *   outputs = sums_of_powers (sum over rows and channels of terms of the taps * terms of the pixels)
 *
 * The taps' terms are the values of their polynomial (value_terms), times NORMAL; the pixels' terms take them with the
 * coefficients of Lagrange's polynomials, less what is in NORMAL. With the value_terms of the outputs' gradients in the
 * place of the taps', the same products give the gradient of the taps. A and B keep the terms, which are rounded to
 * bfloat16, of like size. */
enum { TERMS = 6 };
enum { MOST_FULL = 4 }; /* so many full tiles, and their sums, have room in the registers; of two images fewer */
#define A 0.75f
#define B 1.5f
#define A2 (A * A)
#define B2 (B * B)
static const float NORMAL[TERMS] = {
    1 / (A2 * B2),           1, 1 / (2 * A2 * (A2 - B2)), 1 / (2 * A2 * (A2 - B2)), 1 / (2 * B2 * (B2 - A2)),
    1 / (2 * B2 * (B2 - A2))};
#define SET(value) _mm512_set1_ps(value)
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define MUL(by, a) _mm512_mul_ps(SET(by), a)
#define PLUS(a, by, b) _mm512_fmadd_ps(SET(by), b, a)   /* a + by * b */
#define MINUS(a, by, b) _mm512_fnmadd_ps(SET(by), b, a) /* a - by * b */

/* A row of outputs as tiles: so many full ones, then one of `last` terms, or none where that is 0. */
typedef struct {
  int full, last;
} row_tiles;
INLINE row_tiles tiles_of(int outputs, int kernel) {
  int whole = TERMS + 1 - kernel, left = outputs % whole;
  return (row_tiles){outputs / whole, left ? left + kernel - 1 : 0};
}
INLINE int terms_of(row_tiles row) { return TERMS * row.full + row.last; }
INLINE int tiles_with(row_tiles row, int term) { return row.full + (row.last > term); }

/* The terms of a tile's pixels d0 ... d(terms - 1). */
INLINE void pixel_terms(const __m512 *d, const int terms, __m512 *out) {
  if (terms == 3) {
    out[0] = MUL(A2 * B2, MINUS(d[0], 1 / A, d[1])), out[1] = MINUS(d[2], A, d[1]);
    out[2] = MUL(2 * A * (A2 - B2), d[1]);
  } else if (terms == 4) {
    __m512 odd = MUL(A * (A2 - B2), d[1]);
    out[0] = MUL(B2, MINUS(MUL(A2, d[0]), 1, d[2])), out[1] = MINUS(d[3], A2, d[1]);
    out[2] = PLUS(odd, A2 - B2, d[2]), out[3] = MINUS(MUL(A2 - B2, d[2]), 1, odd);
  } else if (terms == 5) {
    __m512 even = MINUS(d[2], A2, d[0]), odd = MINUS(d[3], A2, d[1]);
    out[0] = MINUS(MUL(B, odd), B2, even), out[1] = MINUS(MINUS(d[4], A2, d[2]), B, odd);
    out[2] = MUL(A + B, PLUS(MINUS(d[3], A * B, d[1]), A - B, d[2]));
    out[3] = MUL(B - A, MINUS(PLUS(d[3], A * B, d[1]), A + B, d[2]));
    out[4] = MUL(2 * B, odd);
  } else {
    __m512 even_a = MINUS(d[4], B2, d[2]), odd_a = MINUS(d[3], B2, d[1]);
    __m512 even_b = MINUS(d[4], A2, d[2]), odd_b = MINUS(d[3], A2, d[1]);
    out[0] = PLUS(MINUS(d[4], A2 + B2, d[2]), A2 * B2, d[0]);
    out[1] = PLUS(MINUS(d[5], A2 + B2, d[3]), A2 * B2, d[1]);
    out[2] = PLUS(even_a, A, odd_a), out[3] = MINUS(even_a, A, odd_a);
    out[4] = PLUS(even_b, B, odd_b), out[5] = MINUS(even_b, B, odd_b);
  }
}

/* The values at the points of the polynomial with these coefficients. */
INLINE void value_terms(const __m512 *g, const int coefficients, const int terms, __m512 *out) {
  __m512 even_a = g[0], even_b = g[0], zero = _mm512_setzero_ps(), odd_a = zero, odd_b = zero;
  if (coefficients > 1) odd_a = MUL(A, g[1]), odd_b = MUL(B, g[1]);
  if (coefficients > 2) even_a = PLUS(even_a, A2, g[2]), even_b = PLUS(even_b, B2, g[2]);
  if (coefficients > 3) odd_a = PLUS(odd_a, A2 * A, g[3]), odd_b = PLUS(odd_b, B2 * B, g[3]);
  if (coefficients > 4) even_a = PLUS(even_a, A2 * A2, g[4]), even_b = PLUS(even_b, B2 * B2, g[4]);
  out[0] = g[0], out[1] = g[coefficients - 1], out[2] = ADD(even_a, odd_a);
  if (terms > 3) out[3] = SUB(even_a, odd_a);
  if (terms > 4) out[4] = ADD(even_b, odd_b);
  if (terms > 5) out[5] = SUB(even_b, odd_b);
}

/* The other way round: number j is the sum over the points p of p^j s, with the point infinity in the last. */
INLINE void sums_of_powers(const __m512 *s, const int terms, const int numbers, __m512 *out) {
  __m512 zero = _mm512_setzero_ps();
  __m512 even_a = terms > 3 ? ADD(s[2], s[3]) : s[2], odd_a = terms > 3 ? SUB(s[2], s[3]) : s[2];
  __m512 even_b = terms > 5 ? ADD(s[4], s[5]) : terms > 4 ? s[4] : zero;
  __m512 odd_b = terms > 5 ? SUB(s[4], s[5]) : even_b;
  out[0] = ADD(s[0], ADD(even_a, even_b));
  if (numbers > 1) out[1] = PLUS(MUL(A, odd_a), B, odd_b);
  if (numbers > 2) out[2] = PLUS(MUL(A2, even_a), B2, even_b);
  if (numbers > 3) out[3] = PLUS(MUL(A2 * A, odd_a), B2 * B, odd_b);
  if (numbers > 4) out[4] = PLUS(MUL(A2 * A2, even_a), B2 * B2, even_b);
  out[numbers - 1] = ADD(out[numbers - 1], s[1]);
}

/* 16 channels of the pixel `at` of a row, where the mask is above 0; 0 outside the row */
INLINE __m512 pixel(const bf16 *x, const bf16 *mask, int at, int W, int C) {
  if ((unsigned)at >= (unsigned)W) return _mm512_setzero_ps();
  __m256i values = _mm256_loadu_si256((const __m256i *)(x + (long)at * C));
  if (mask) {
    __m256i m = _mm256_loadu_si256((const __m256i *)(mask + (long)at * C));
    values = _mm256_maskz_mov_epi16(_mm256_cmpgt_epi16_mask(m, _mm256_setzero_si256()), values);
  }
  return widen(values);
}

/* The tile's pixels, 16 channels, from those of the tile before. */
INLINE void move_on(__m512 *d, const bf16 *x, const bf16 *mask, int tile, int W, int C, int padding, const int kernel,
                    const int terms) {
  const int step = TERMS + 1 - kernel;
  for (int j = 0; j < kernel - 1; j++) d[j] = d[j + step];
  for (int j = kernel - 1; j < terms; j++) d[j] = pixel(x, mask, step * tile - padding + j, W, C);
}
INLINE void before_the_first(__m512 *d, const bf16 *x, const bf16 *mask, int W, int C, int padding, const int kernel) {
  const int step = TERMS + 1 - kernel;
  for (int j = 0; j < kernel - 1; j++) d[j + step] = pixel(x, mask, j - padding, W, C);
}

/* A tile's sums -> outputs with bias, 16 channels */
INLINE void give(__m512 *sums, const int terms, int kernel, long outputs, __m512 start, __m512 least, bf16 *y) {
  __m512 out[TERMS];
#define GIVE_OUTPUTS(k)                                                                                                \
  if (kernel == k && terms >= k) {                                                                                     \
    sums_of_powers(sums, terms, terms + 1 - k, out);                                                                   \
    for (int j = 0; j < terms + 1 - k; j++) put(y + j * outputs, _mm512_max_ps(ADD(out[j], start), least));            \
  }
  GIVE_OUTPUTS(3) GIVE_OUTPUTS(5)
}

INLINE int vectors_of(int channels_left) { return channels_left >= 64 ? 4 : channels_left >= 32 ? 2 : 1; }

/* Pairs of images that are worked on together, so that the sums are seldom fetched. */
static long together(int Ho, int tiles) { return Ho * tiles >= 96 ? 1 : (95 + Ho * tiles) / (Ho * tiles); }

/* Terms of scratch for committee_conv_gradient */
EXPORT long committee_conv_gradient_scratch(int H, int W, int inputs, int outputs, int kernel, int padding) {
  int tall = H + 2 * padding, Ho = tall - kernel + 1, Wo = W + 2 * padding - kernel + 1;
  int tiles = tiles_with(tiles_of(Wo, kernel), 0);
  return 2L * TERMS * together(Ho, tiles) * tiles * ((long)tall * inputs + (long)Ho * outputs) +
         (W * inputs > Wo * outputs ? W * inputs : Wo * outputs);
}

/* Terms of scratch for committee_conv: those of two images */
EXPORT long committee_conv_scratch(int H, int W, int inputs, int kernel, int padding) {
  return 2L * H * terms_of(tiles_of(W + 2 * padding - kernel + 1, kernel)) * inputs;
}

INLINE void tap_terms(const __m512 *g, int kernel, __m512 *out) {
  if (kernel == 3)
    value_terms(g, 3, TERMS, out);
  else
    value_terms(g, 5, TERMS, out);
  for (int p = 0; p < TERMS; p++) out[p] = MUL(NORMAL[p], out[p]);
}

/* Terms as bfloat16, two in a product: for CPUs with fast pairs. */
static const uint16_t ZIP[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
INLINE void store_bf16(bf16 *to, __m512 terms) { put(to, terms); }
INLINE void store_two_bf16(bf16 *to, long apart, __m512 first, __m512 second) { /* neighbours, whatever `apart` says */
  __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_loadu_si512(ZIP), both));
  (void)apart;
}
INLINE void scatter_two_bf16(bf16 *to, __m512 first, __m512 second) {
  uint32_t pairs[16];
  _mm512_storeu_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  for (int i = 0; i < 8; i++, to += 32 * TERMS) memcpy(to, pairs + i, 4), memcpy(to + 2, pairs + 8 + i, 4);
}
#define NUMBER bf16
#define PER 2
#define NAMED(name) name##_bf16
#define VECTOR __m512i
#define LOAD(address) _mm512_loadu_si512(address)
#define DOT(sum, weights, address)                                                                                     \
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*(const int32_t *)(address)))
#include "convolution.h"
#undef NUMBER
#undef PER
#undef NAMED
#undef VECTOR
#undef LOAD
#undef DOT

/* Terms as float32, one in a product: for the others. */
INLINE void store_float(float *to, __m512 terms) { _mm512_storeu_ps(to, terms); }
INLINE void store_two_float(float *to, long apart, __m512 first, __m512 second) {
  _mm512_storeu_ps(to, first), _mm512_storeu_ps(to + apart, second);
}
INLINE void scatter_two_float(float *to, __m512 first, __m512 second) {
  float a[16], b[16];
  _mm512_storeu_ps(a, first), _mm512_storeu_ps(b, second);
  for (int i = 0; i < 16; i++, to += 16 * TERMS) to[0] = a[i], to[1] = b[i];
}
#define NUMBER float
#define PER 1
#define NAMED(name) name##_float
#define VECTOR __m512
#define LOAD(address) _mm512_loadu_ps(address)
#define DOT(sum, weights, address)                                                                                     \
  __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*(const float *)(address)))
#include "convolution.h"

/* sums (term, kernel, inputs, outputs) -> gradient (outputs, kernel, kernel, inputs). */
EXPORT void committee_unpack(const float *sums, float *gradient, int inputs, int outputs, int kernel) {
  long apart = (long)kernel * inputs * outputs;
  for (int row = 0; row < kernel; row++)
    for (int c = 0; c < inputs; c++)
      for (int o = 0; o < outputs; o += 16) {
        const float *n = sums + ((long)row * inputs + c) * outputs + o;
        __m512 s[TERMS], g[5];
        for (int p = 0; p < TERMS; p++) s[p] = MUL(NORMAL[p], _mm512_loadu_ps(n + p * apart));
        if (kernel == 3)
          sums_of_powers(s, TERMS, 3, g);
        else
          sums_of_powers(s, TERMS, 5, g);
        for (int k = 0; k < kernel; k++) {
          float values[16], *to = gradient + (((long)o * kernel + row) * kernel + k) * inputs + c;
          _mm512_storeu_ps(values, g[k]);
          for (int i = 0; i < 16; i++, to += (long)kernel * kernel * inputs) *to = values[i];
        }
      }
}
#undef A
#undef B
#undef A2
#undef B2

/* (taps, outputs) -> (outputs, taps) */
EXPORT void committee_turn(const float *sums, float *gradient, int taps, int outputs) {
  for (int o = 0; o < outputs; o++)
    for (int t = 0; t < taps; t++) gradient[(long)o * taps + t] = sums[(long)t * outputs + o];
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

#define TDECLARE(t) __m512 a##t = _mm512_loadu_ps(sums + t * outputs);
#define TFROM(t)                                                                                                       \
  ((t) / PER_ROW == 0 ? r0 : (t) / PER_ROW == 1 ? r1 : (t) / PER_ROW == 2 ? r2 : (t) / PER_ROW == 3 ? r3 : r4)
#define TSTEP(t) a##t = _mm512_fmadd_ps(d, _mm512_set1_ps(TFROM(t)[(t) % PER_ROW]), a##t);
#define TSTORE(t) _mm512_storeu_ps(sums + t * outputs, a##t);
/* One image's part of the sums of 16 outputs: TAPS = ROWS * ROW taps, ROW neighbouring values of each of so many rows
 * of the kernel; `total` is the sum of the gradients, which count where the mask, if there is one, is above 0. */
typedef void (*taps_function)(const float *x, long pitch, const bf16 *dy, const bf16 *mask, float *sums, float *total,
                              int H, int W, long inputs, long outputs);
#define TAPS(ROWS, ROW, TAPS_)                                                                                         \
  static void taps_##ROWS##_##ROW(const float *x, long pitch, const bf16 *dy, const bf16 *mask, float *sums,           \
                                  float *total, int H, int W, long inputs, long outputs) {                             \
    enum { PER_ROW = ROW };                                                                                            \
    __m512 all = _mm512_loadu_ps(total);                                                                               \
    REP_##TAPS_(TDECLARE) for (int h = 0; h < H; h++, x += pitch) {                                                    \
      const float *r0 = x, *r1 = r0 + pitch, *r2 = r1 + pitch, *r3 = r2 + pitch, *r4 = r3 + pitch;                     \
      (void)r1, (void)r2, (void)r3, (void)r4;                                                                          \
      for (int w = 0; w < W; w++, dy += outputs) {                                                                     \
        __m512 d = pixel(dy, mask, 0, 1, 0);                                                                           \
        all = _mm512_add_ps(all, d);                                                                                   \
        REP_##TAPS_(TSTEP) r0 += inputs, r1 += inputs, r2 += inputs, r3 += inputs, r4 += inputs;                       \
        mask = mask ? mask + outputs : 0;                                                                              \
      }                                                                                                                \
    }                                                                                                                  \
    REP_##TAPS_(TSTORE) _mm512_storeu_ps(total, all);                                                                  \
  }
TAPS(3, 3, 9)
TAPS(5, 5, 25)
TAPS(3, 9, 27)
TAPS(1, 15, 15)

/* sums (kernel, kernel, inputs, outputs); scratch: one framed image of floats */
EXPORT void committee_stem_gradient(const float *x, float offset, float scale, const bf16 *dy, const bf16 *mask,
                                    float *sums, float *bias_sums, long N, int H, int W, int inputs, int outputs,
                                    int kernel, int padding, float *scratch) {
  int width = W + 2 * padding, Ho = H + 2 * padding - kernel + 1, Wo = width - kernel + 1, taps = kernel * inputs;
  int rows = taps == 15 ? 1 : kernel; /* of the kernel at once: all, if their sums have room in the registers */
  taps_function function = taps == 3 ? taps_3_3 : taps == 5 ? taps_5_5 : taps == 9 ? taps_3_9 : taps_1_15;
  long pitch = (long)width * inputs, result = (long)Ho * Wo * outputs;
  for (long n = 0; n < N; n++, x += (long)H * W * inputs) {
    scaled_frame(x, H, W, inputs, padding, offset, scale, scratch);
    for (int c = 0; c < outputs; c += 16)
      for (int row = 0; row < kernel; row += rows) {
        float nowhere[16] = {0};
        function(scratch + row * pitch, pitch, dy + n * result + c, mask ? mask + n * result + c : 0,
                 sums + (long)row * taps * outputs + c, bias_sums && row == 0 ? bias_sums + c : nowhere, Ho, Wo, inputs,
                 outputs);
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
