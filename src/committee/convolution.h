/* Convolution with terms of one kind of number. kernels.c explains the terms and includes this twice, having defined
 *
 *   NUMBER            the type of a term
 *   PER               terms that one dot product takes from either side: neighbouring channels, or two images
 *   NAMED(name)       the name for this kind
 *   VECTOR, LOAD      16 * PER terms, and how they are fetched
 *   DOT               sum (16 floats) += weights (16 times PER terms) . PER terms at an address, the same for all 16
 *   store, store_two, scatter_two        how terms are put away
 */

/* One row of an image -> (tile, term, channel). */
INLINE void NAMED(term_row)(const bf16 *x, const bf16 *mask, int W, int C, int padding, row_tiles tiles,
                            const int kernel, NUMBER *out) {
  for (int c = 0; c < C; c += 16) {
    __m512 d[TERMS], term[TERMS];
    const bf16 *m = mask ? mask + c : 0;
    NUMBER *to = out + c;
    before_the_first(d, x + c, m, W, C, padding, kernel);
    for (int t = 0; t < tiles.full; t++) {
      move_on(d, x + c, m, t, W, C, padding, kernel, TERMS);
      pixel_terms(d, TERMS, term);
      for (int p = 0; p < TERMS; p++, to += C) NAMED(store)(to, term[p]);
    }
#define LAST_ROW(n)                                                                                                    \
  if (tiles.last == n) {                                                                                               \
    move_on(d, x + c, m, tiles.full, W, C, padding, kernel, n);                                                        \
    pixel_terms(d, n, term);                                                                                           \
    for (int p = 0; p < n; p++, to += C) NAMED(store)(to, term[p]);                                                    \
  }
    LAST_ROW(3) LAST_ROW(4) LAST_ROW(5)
  }
}

#define DECLARE(i)                                                                                                     \
  __m512 a##i##_0 = zero, a##i##_1 = zero, a##i##_2 = zero, a##i##_3 = zero, a##i##_4 = zero, a##i##_5 = zero,         \
         b##i##_0 = zero, b##i##_1 = zero, b##i##_2 = zero, b##i##_3 = zero, b##i##_4 = zero, b##i##_5 = zero;
#define TERM(i, p)                                                                                                     \
  DOT(a##i##_##p, w, from + (i * TERMS + p) * C);                                                                      \
  if (IMAGES == 2) DOT(b##i##_##p, w, second + (i * TERMS + p) * C);
#define TERM_0(i) TERM(i, 0)
#define TERM_1(i) TERM(i, 1)
#define TERM_2(i) TERM(i, 2)
#define TERM_3(i) TERM(i, 3)
#define TERM_4(i) TERM(i, 4)
#define TERM_5(i) TERM(i, 5)
#define WEIGHTS(FULL, p)                                                                                               \
  if (FULL || LAST > p) {                                                                                              \
    VECTOR w = LOAD(weights + 16 * PER * p);                                                                           \
    REP_##FULL(TERM_##p) if (LAST > p) {                                                                               \
      DOT(al_##p, w, from + (FULL * TERMS + p) * C);                                                                   \
      if (IMAGES == 2) DOT(bl_##p, w, second + (FULL * TERMS + p) * C);                                                \
    }                                                                                                                  \
  }
#define STORE_TILE(image, i, n, tile, to)                                                                              \
  {                                                                                                                    \
    __m512 s[TERMS] = {image##i##_0, image##i##_1, image##i##_2, image##i##_3, image##i##_4, image##i##_5};            \
    give(s, n, kernel, outputs, start, least, to + (tile) * (TERMS + 1 - kernel) * outputs);                           \
  }
#define STORE(i)                                                                                                       \
  STORE_TILE(a, i, TERMS, i, y)                                                                                        \
  if (IMAGES == 2) STORE_TILE(b, i, TERMS, i, y_second)

/* Neighbouring tiles of a row, FULL whole ones and perhaps one of LAST terms, 16 output channels, from CI input
 * channels, of one image or of two. x: the first tile's terms in the first row of the kernel, rows `pitch` apart, the
 * second image's terms `apart` and its outputs at y_second; weights: (row, channel / PER, term, 16, PER). */
typedef void (*NAMED(tiles_function))(const NUMBER *x, long apart, long pitch, const NUMBER *weights, int rows,
                                      int kernel, long outputs, __m512 start, int relu, bf16 *y, bf16 *y_second);
#define TILES(CI, FULL, LAST_, IMAGES_)                                                                                \
  static void NAMED(tiles_##CI##_##FULL##_##LAST_##_##IMAGES_)(                                                        \
      const NUMBER *x, long apart, long pitch, const NUMBER *weights, int rows, int kernel, long outputs,              \
      __m512 start, int relu, bf16 *y, bf16 *y_second) {                                                               \
    enum { C = CI, LAST = LAST_, IMAGES = IMAGES_ };                                                                   \
    __m512 zero = _mm512_setzero_ps(), least = LEAST;                                                                  \
    __m512 al_0 = zero, al_1 = zero, al_2 = zero, al_3 = zero, al_4 = zero, al_5 = zero;                               \
    __m512 bl_0 = zero, bl_1 = zero, bl_2 = zero, bl_3 = zero, bl_4 = zero, bl_5 = zero;                               \
    REP_##FULL(DECLARE) for (int row = 0; row < rows;                                                                  \
                             row++, x += pitch) for (const NUMBER *from = x, *second = x + apart, *end = x + C;        \
                                                     from < end;                                                       \
                                                     from += PER, second += PER, weights += 16 * PER * TERMS){         \
        WEIGHTS(FULL, 0) WEIGHTS(FULL, 1) WEIGHTS(FULL, 2) WEIGHTS(FULL, 3) WEIGHTS(FULL, 4)                           \
            WEIGHTS(FULL, 5)} REP_##FULL(STORE) if (LAST) {                                                            \
      STORE_TILE(al, , LAST, FULL, y)                                                                                  \
      if (IMAGES == 2) STORE_TILE(bl, , LAST, FULL, y_second)                                                          \
    }                                                                                                                  \
    (void)y_second;                                                                                                    \
  }
#define ONE_IMAGE(M, CI, FULL) M(CI, FULL, 0, 1) M(CI, FULL, 3, 1) M(CI, FULL, 4, 1) M(CI, FULL, 5, 1)
#define TWO_IMAGES(M, CI, FULL) M(CI, FULL, 0, 2) M(CI, FULL, 3, 2) M(CI, FULL, 4, 2) M(CI, FULL, 5, 2)
#define TILES_OF(CI)                                                                                                   \
  ONE_IMAGE(TILES, CI, 0)                                                                                              \
  ONE_IMAGE(TILES, CI, 1)                                                                                              \
  ONE_IMAGE(TILES, CI, 2)                                                                                              \
  ONE_IMAGE(TILES, CI, 3) ONE_IMAGE(TILES, CI, 4) TWO_IMAGES(TILES, CI, 0) TWO_IMAGES(TILES, CI, 1) TILES(CI, 2, 0, 2)
#define ALL_CHANNELS(M) M(16) M(32) M(48) M(64) M(96) M(128)
ALL_CHANNELS(TILES_OF)

/* The function for these tiles; none where two images' sums do not fit. */
static NAMED(tiles_function) NAMED(tiles_function_of)(int channels, int full, int last, int images) {
#define NAME(CI, FULL, LAST, IMAGES) NAMED(tiles_##CI##_##FULL##_##LAST##_##IMAGES),
#define ROW(CI)                                                                                                        \
  {{{ONE_IMAGE(NAME, CI, 0)},                                                                                          \
    {ONE_IMAGE(NAME, CI, 1)},                                                                                          \
    {ONE_IMAGE(NAME, CI, 2)},                                                                                          \
    {ONE_IMAGE(NAME, CI, 3)},                                                                                          \
    {ONE_IMAGE(NAME, CI, 4)}},                                                                                         \
   {{TWO_IMAGES(NAME, CI, 0)}, {TWO_IMAGES(NAME, CI, 1)}, {NAME(CI, 2, 0, 2)}}},
  static const NAMED(tiles_function) table[6][2][MOST_FULL + 1][4] = {ALL_CHANNELS(ROW)};
  int row = channels == 16 ? 0 : channels == 32 ? 1 : channels == 48 ? 2 : channels == 64 ? 3 : channels == 96 ? 4 : 5;
  return table[row][images - 1][full][last ? last - 2 : 0];
}

EXPORT void NAMED(committee_conv)(const bf16 *x, const bf16 *mask, const NUMBER *weights, const float *bias, bf16 *y,
                                  long N, int H, int W, int inputs, int outputs, int kernel, int padding, int relu,
                                  NUMBER *scratch) {
  int Ho = H + 2 * padding - kernel + 1, Wo = W + 2 * padding - kernel + 1, whole = TERMS + 1 - kernel;
  row_tiles tiles = tiles_of(Wo, kernel);
  int parts = tiles.full > MOST_FULL ? (tiles.full + MOST_FULL - 1) / MOST_FULL : 1;
  long pitch = (long)terms_of(tiles) * inputs, row = (long)W * inputs, image = H * row, apart = H * pitch;
  long result = (long)Ho * Wo * outputs;
  int pairs = parts == 1 && NAMED(tiles_function_of)(inputs, tiles.full, tiles.last, 2) != 0;
  for (long n = 0; n < N; n += 1 + pairs, x += (1 + pairs) * image, y += (1 + pairs) * result) {
    int images = 1 + (pairs && n + 1 < N);
    for (int r = 0; r < images * H; r++) { /* the second image follows the first */
      const bf16 *from = x + r * row, *m = mask ? mask + n * image + r * row : 0;
      NUMBER *to = scratch + r * pitch;
      if (kernel == 3 && m)
        NAMED(term_row)(from, m, W, inputs, padding, tiles, 3, to);
      else if (kernel == 3)
        NAMED(term_row)(from, 0, W, inputs, padding, tiles, 3, to);
      else
        NAMED(term_row)(from, m, W, inputs, padding, tiles, 5, to);
    }
    for (int c = 0; c < outputs; c += 16) {
      const NUMBER *w = weights + (long)c * kernel * inputs * TERMS;
      __m512 start = bias ? _mm512_loadu_ps(bias + c) : _mm512_setzero_ps();
      for (int part = 0, t = 0; part < parts; part++) {
        int full = (tiles.full - t + parts - part - 1) / (parts - part);
        NAMED(tiles_function)
        function = NAMED(tiles_function_of)(inputs, full, part == parts - 1 ? tiles.last : 0, images);
        for (int h = 0; h < Ho; h++) { /* rows of the kernel that lie on the image */
          int first = padding > h ? padding - h : 0, end = H + padding - h < kernel ? H + padding - h : kernel;
          bf16 *to = y + ((long)h * Wo + t * whole) * outputs + c;
          function(scratch + (h + first - padding) * pitch + (long)t * TERMS * inputs, apart, pitch,
                   w + 16L * first * inputs * TERMS, end - first, kernel, outputs, start, relu, to, to + result);
        }
        t += full;
      }
    }
  }
}

/* --- convolution: gradient of the weights --------------------------------------------------------------------------
 */

/* The same row of two images -> out[term]: (tile, channel, image), or where PER is 1 (tile, image, channel) */
INLINE void NAMED(paired_term_row)(const bf16 *a, const bf16 *b, int W, int C, int padding, row_tiles tiles,
                                   const int kernel, NUMBER *const *out) {
  for (int c = 0; c < C; c += 16) {
    __m512 da[TERMS], db[TERMS], ta[TERMS], tb[TERMS];
    before_the_first(da, a + c, 0, W, C, padding, kernel), before_the_first(db, b + c, 0, W, C, padding, kernel);
    long at = PER * c;
    for (int t = 0; t < tiles.full; t++, at += 2 * C) {
      move_on(da, a + c, 0, t, W, C, padding, kernel, TERMS), move_on(db, b + c, 0, t, W, C, padding, kernel, TERMS);
      pixel_terms(da, TERMS, ta), pixel_terms(db, TERMS, tb);
      for (int p = 0; p < TERMS; p++) NAMED(store_two)(out[p] + at, C, ta[p], tb[p]);
    }
#define LAST_PAIR(n)                                                                                                   \
  if (tiles.last == n) {                                                                                               \
    move_on(da, a + c, 0, tiles.full, W, C, padding, kernel, n);                                                       \
    move_on(db, b + c, 0, tiles.full, W, C, padding, kernel, n);                                                       \
    pixel_terms(da, n, ta), pixel_terms(db, n, tb);                                                                    \
    for (int p = 0; p < n; p++) NAMED(store_two)(out[p] + at, C, ta[p], tb[p]);                                        \
  }
    LAST_PAIR(3) LAST_PAIR(4) LAST_PAIR(5)
  }
}

/* The gradients of a row of outputs of two images -> out[term], likewise; adds to the bias's gradient. */
INLINE void NAMED(paired_gradient_row)(const bf16 *a, const bf16 *ma, const bf16 *b, const bf16 *mb, int W, int C,
                                       row_tiles tiles, const int kernel, float *bias_sums, NUMBER *const *out) {
  const int whole = TERMS + 1 - kernel;
  for (int c = 0; c < C; c += 16) {
    __m512 sum = _mm512_setzero_ps(), da[TERMS], db[TERMS], ta[TERMS], tb[TERMS];
    long at = PER * c;
#define GRADIENT_TILE(n, tile)                                                                                         \
  for (int j = 0; j < n + 1 - kernel; j++) {                                                                           \
    da[j] = pixel(a + c, ma ? ma + c : 0, whole * (tile) + j, W, C);                                                   \
    db[j] = pixel(b + c, mb ? mb + c : 0, whole * (tile) + j, W, C);                                                   \
    sum = ADD(sum, ADD(da[j], db[j]));                                                                                 \
  }                                                                                                                    \
  value_terms(da, n + 1 - kernel, n, ta), value_terms(db, n + 1 - kernel, n, tb);                                      \
  for (int p = 0; p < n; p++) NAMED(store_two)(out[p] + at, C, ta[p], tb[p]);
    for (int t = 0; t < tiles.full; t++, at += 2 * C) {
      GRADIENT_TILE(TERMS, t)
    }
    if (kernel == 3 && tiles.last == 3) {
      GRADIENT_TILE(3, tiles.full)
    }
    if (kernel == 3 && tiles.last == 4) {
      GRADIENT_TILE(4, tiles.full)
    }
    if (tiles.last == 5) {
      GRADIENT_TILE(5, tiles.full)
    }
    if (bias_sums) _mm512_storeu_ps(bias_sums + c, ADD(_mm512_loadu_ps(bias_sums + c), sum));
  }
}

#define LOAD_1 VECTOR w0 = LOAD(w);
#define LOAD_2 LOAD_1 VECTOR w1 = LOAD(w + 16 * PER);
#define LOAD_4 LOAD_2 VECTOR w2 = LOAD(w + 32 * PER), w3 = LOAD(w + 48 * PER);
#define GDECLARE_1(j) __m512 a##j##_0 = _mm512_loadu_ps(TO(j));
#define GDECLARE_2(j) GDECLARE_1(j) __m512 a##j##_1 = _mm512_loadu_ps(TO(j) + 16);
#define GDECLARE_4(j)                                                                                                  \
  GDECLARE_2(j) __m512 a##j##_2 = _mm512_loadu_ps(TO(j) + 32), a##j##_3 = _mm512_loadu_ps(TO(j) + 48);
#define GSTORE_1(j) _mm512_storeu_ps(TO(j), a##j##_0);
#define GSTORE_2(j) GSTORE_1(j) _mm512_storeu_ps(TO(j) + 16, a##j##_1);
#define GSTORE_4(j)                                                                                                    \
  GSTORE_2(j) _mm512_storeu_ps(TO(j) + 32, a##j##_2);                                                                  \
  _mm512_storeu_ps(TO(j) + 48, a##j##_3);
#define TO(j) (sums + ((j) / INS * inputs + (j) % INS) * outputs)
#define FROM(j)                                                                                                        \
  (((j) / INS == 0 ? r0 : (j) / INS == 1 ? r1 : (j) / INS == 2 ? r2 : (j) / INS == 3 ? r3 : r4) + PER * ((j) % INS))
#define GSTEP_1(j) DOT(a##j##_0, w0, FROM(j));
#define GSTEP_2(j) GSTEP_1(j) DOT(a##j##_1, w1, FROM(j));
#define GSTEP_4(j)                                                                                                     \
  GSTEP_2(j) DOT(a##j##_2, w2, FROM(j));                                                                               \
  DOT(a##j##_3, w3, FROM(j));

/* Adds to one term's sums (row of the kernel, input, output): all KERNEL rows, IN input and V * 16 output channels,
 * over `pairs` pairs of images of H rows of `tiles` tiles. N = KERNEL * IN. x: a pair has `tall` rows, terms apart. */
typedef void (*NAMED(gradient_function))(const NUMBER *x, const NUMBER *dy, float *sums, long pairs, long x_pair,
                                         long dy_pair, int H, int tiles, long inputs, long outputs);
#define GRADIENT(KERNEL, IN, V, N)                                                                                     \
  static void NAMED(gradient_##KERNEL##_##V)(const NUMBER *x, const NUMBER *dy, float *sums, long pairs, long x_pair,  \
                                             long dy_pair, int H, int tiles, long inputs, long outputs) {              \
    enum { INS = IN };                                                                                                 \
    long pitch = 2L * tiles * inputs;                                                                                  \
    REP_##N(GDECLARE_##V) for (long n = 0; n < pairs; n++) {                                                           \
      const NUMBER *w = dy + n * dy_pair;                                                                              \
      for (int h = 0; h < H; h++) {                                                                                    \
        const NUMBER *r0 = x + n * x_pair + h * pitch, *r1 = r0 + pitch, *r2 = r1 + pitch, *r3 = r2 + pitch,           \
                     *r4 = r3 + pitch;                                                                                 \
        (void)r3, (void)r4;                                                                                            \
        for (int t = 0; t < 2 / PER * tiles; t++, w += PER * outputs) {                                                \
          LOAD_##V REP_##N(GSTEP_##V) r0 += PER * inputs, r1 += PER * inputs, r2 += PER * inputs, r3 += PER * inputs,  \
              r4 += PER * inputs;                                                                                      \
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
  NAMED(gradient_function) function;
  int inputs;
} NAMED(GRADIENTS)[2][5] = {
    {{0, 0}, {NAMED(gradient_3_1), 8}, {NAMED(gradient_3_2), 4}, {0, 0}, {NAMED(gradient_3_4), 2}},
    {{0, 0}, {NAMED(gradient_5_1), 4}, {NAMED(gradient_5_2), 2}, {0, 0}, {NAMED(gradient_5_4), 1}},
};

/* sums (term, kernel, inputs, outputs) and bias_sums (outputs), or none, are added to. */
EXPORT void NAMED(committee_conv_gradient)(const bf16 *x, const bf16 *dy, const bf16 *mask, float *sums,
                                           float *bias_sums, long N, int H, int W, int inputs, int outputs, int kernel,
                                           int padding, NUMBER *scratch) {
  int tall = H + 2 * padding, Ho = tall - kernel + 1, Wo = W + 2 * padding - kernel + 1;
  row_tiles tiles = tiles_of(Wo, kernel);
  int most = tiles_with(tiles, 0);
  long group = together(Ho, most), row = (long)W * inputs, image = H * row, dy_row = (long)Wo * outputs,
       result = Ho * dy_row;
  /* a term's values are (pair, row) of what a row gives, of as many tiles as have this term */
  long x_term = group * tall * 2L * most * inputs, d_term = group * Ho * 2L * most * outputs;
  NUMBER *x_terms = scratch, *d_terms = x_terms + TERMS * x_term, *to[TERMS];
  bf16 *nothing = (bf16 *)(d_terms + TERMS * d_term);
  memset(nothing, 0, sizeof(bf16) * (row > dy_row ? row : dy_row));
  for (long n = 0; n < N; n += 2 * group) {
    long pairs = (N - n + 1) / 2 < group ? (N - n + 1) / 2 : group;
    for (long pair = 0; pair < pairs; pair++) {
      int second = n + 2 * pair + 1 < N; /* the last pair may lack it */
      for (int r = 0; r < tall; r++) {
        for (int p = 0; p < TERMS; p++)
          to[p] = x_terms + p * x_term + (pair * tall + r) * 2L * tiles_with(tiles, p) * inputs;
        int h = r - padding;
        const bf16 *a = x + (n + 2 * pair) * image + h * row, *b = second ? a + image : nothing;
        if (h < 0 || h >= H)
          for (int p = 0; p < TERMS; p++) memset(to[p], 0, sizeof(NUMBER) * 2 * tiles_with(tiles, p) * inputs);
        else if (kernel == 3)
          NAMED(paired_term_row)(a, b, W, inputs, padding, tiles, 3, to);
        else
          NAMED(paired_term_row)(a, b, W, inputs, padding, tiles, 5, to);
      }
      for (int h = 0; h < Ho; h++) {
        for (int p = 0; p < TERMS; p++)
          to[p] = d_terms + p * d_term + (pair * Ho + h) * 2L * tiles_with(tiles, p) * outputs;
        long at = (n + 2 * pair) * result + h * dy_row;
        const bf16 *a = dy + at, *b = second ? a + result : nothing;
        const bf16 *ma = mask ? mask + at : 0, *mb = mask && second ? ma + result : 0;
        if (kernel == 3)
          NAMED(paired_gradient_row)(a, ma, b, mb, Wo, outputs, tiles, 3, bias_sums, to);
        else
          NAMED(paired_gradient_row)(a, ma, b, mb, Wo, outputs, tiles, 5, bias_sums, to);
      }
    }
    for (int p = 0; p < TERMS; p++) {
      long across = tiles_with(tiles, p);
      for (int c = 0, vectors; across && c < outputs; c += 16 * vectors) {
        vectors = vectors_of(outputs - c);
        NAMED(gradient_function) add = NAMED(GRADIENTS)[kernel == 5][vectors].function;
        int step = NAMED(GRADIENTS)[kernel == 5][vectors].inputs;
        for (int ci = 0; ci < inputs; ci += step)
          add(x_terms + p * x_term + PER * ci, d_terms + p * d_term + PER * c,
              sums + ((long)p * kernel * inputs + ci) * outputs + c, pairs, 2L * tall * across * inputs,
              2L * Ho * across * outputs, Ho, across, inputs, outputs);
      }
    }
  }
}

/* --- convolution: weights ------------------------------------------------------------------------------------------
 */

/* w (outputs, kernel, kernel, inputs) float32 -> forward (outputs / 16, kernel, inputs / PER, term, 16, PER) and,
 * turned round for the gradient of the input, backward (inputs / 16, kernel, outputs / PER, term, 16, PER). */
EXPORT void NAMED(committee_pack)(const float *w, NUMBER *forward, NUMBER *backward, int inputs, int outputs,
                                  int kernel) {
  for (int o = 0; o < outputs; o += 2)
    for (int row = 0; row < kernel; row++)
      for (int c = 0; c < inputs; c += 16) {
        __m512 g[2][5], turned[2][5], t[2][TERMS], back[2][TERMS];
        for (int i = 0; i < 2; i++) {
          for (int k = 0; k < kernel; k++)
            turned[i][kernel - 1 - k] = g[i][k] =
                _mm512_loadu_ps(w + (((long)(o + i) * kernel + row) * kernel + k) * inputs + c);
          tap_terms(g[i], kernel, t[i]), tap_terms(turned[i], kernel, back[i]);
        }
        for (int p = 0; p < TERMS; p++) {
          long behind = ((long)(c / 16) * kernel + kernel - 1 - row) * outputs + o,
               before = ((long)(o / 16) * kernel + row) * inputs + c;
          NAMED(store_two)(backward + 16 * (TERMS * behind + PER * p), 16 * TERMS, back[0][p], back[1][p]);
          NAMED(scatter_two)(forward + 16 * (TERMS * before + PER * p) + PER * (o % 16), t[0][p], t[1][p]);
        }
      }
}
