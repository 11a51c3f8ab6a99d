/* Every function of a path beside plain loops in float64, on random shapes; and a digest of all bits that it returned.
 *
 *   check                      names the paths that were compiled, and whether this CPU has each
 *   check PATH SEED SHAPES     checks so many random shapes; the digest depends on these three, not on the machine
 *
 * An output lies between guards; a sanitizer, which watches the bytes beside an allocation, replaces them.
 */
#include "harness.h"

namespace {

/* --- the checks --------------------------------------------------------------------------------------------------- */

using Values = const bfloat16 *;

bfloat16 positive(bfloat16 sign, bfloat16 value) { return number(sign) > 0 ? value : bfloat16{0}; }

/* A convolution's shape, and its plain loops: calls function(place in y, in the weights, in x) for every product. */
struct Shape {
  int images, height, width, inputs, outputs, kernel, padding;
  int y_height = height + 2 * padding - kernel + 1, y_width = width + 2 * padding - kernel + 1;
  Index x_count = Index{images} * height * width * inputs, y_count = Index{images} * y_height * y_width * outputs;
  Index weight_count = Index{outputs} * kernel * kernel * inputs;

  static Shape drawn(Random &random, bool stem) {
    while (true) {
      const int kernel = random.one_of(KernelSizes{}), inputs = stem ? random.one_of(StemChannels{}) : 0;
      const Shape shape{random.from(1, 7),         random.from(1, 30),
                        random.from(1, 30),        stem ? inputs : random.one_of(Channels{}),
                        random.one_of(Channels{}), kernel,
                        random.from(0, kernel / 2)};
      if (shape.y_height > 0 && shape.y_width > 0 && shape.y_count * shape.kernel * shape.kernel * shape.inputs < 3e6)
        return shape;
    }
  }
  template <class F> void products(F &&function) const { /* weights (output, row, column, input) */
    Index y = 0;
    for (int n = 0; n < images; n++)
      for (int h = 0; h < y_height; h++)
        for (int w = 0; w < y_width; w++)
          for (int o = 0; o < outputs; o++, y++)
            for (int i = 0; i < kernel; i++)
              for (int j = 0; j < kernel; j++) {
                const int row = h + i - padding, column = w + j - padding;
                if (row < 0 || row >= height || column < 0 || column >= width) continue;
                const Index x = ((Index{n} * height + row) * width + column) * inputs;
                const Index weight = ((Index{o} * kernel + i) * kernel + j) * inputs;
                for (int c = 0; c < inputs; c++) function(y, weight + c, x + c);
              }
  }
};

std::vector<double> bias_gradient(Numbers<bfloat16> &dy, int outputs) {
  std::vector<double> sums(outputs);
  for (Index i = 0; i < dy.count; i++) sums[i % outputs] += number(dy[i]);
  return sums;
}

template <class Number> void check_convolution(Functions &functions, Random &random) {
  const Shape shape = Shape::drawn(random, false);
  const auto [images, height, width, inputs, outputs, kernel, padding, y_height, y_width, x_count, y_count, weights] =
      shape;
  constexpr bool coarse = sizeof(Number) == 2;
  const bool relu = random.coin(), with_bias = random.coin(), masked = random.coin();
  const double scale = 1 / std::sqrt(inputs * kernel * kernel);
  const auto draw = [&] { return rounded(random.normal()); };
  Numbers<bfloat16> x(x_count, draw), dy(y_count, draw), mask(y_count, draw), y(y_count), dx(x_count);
  Numbers<float> weight(weights, [&] { return static_cast<float>(random.normal() * scale); });
  Numbers<float> bias(outputs, [&] { return random.normal(); });
  const Index transformed = functions.of<Index(int, int, int)>("filter_numbers")(kernel, inputs, outputs);
  Numbers<Number> ahead(transformed), back(transformed);
  functions.of<void(const float *, Number *, Number *, int, int, int)>("transform_filters")(weight, ahead, back, inputs,
                                                                                            outputs, kernel);
  digest.add(ahead, sizeof(Number) * transformed), digest.add(back, sizeof(Number) * transformed);

  const auto convolution =
      functions.of<void(Values, Optional<const bfloat16>, const Number *, Optional<const float>, bfloat16 *, Index, int,
                        int, int, int, int, int, bool, Number *)>("convolution");
  const auto scratch_of = functions.of<Index(Index, int, int, int, int, int)>("convolution_scratch");
  {
    Numbers<Number> scratch(scratch_of(images, height, width, inputs, kernel, padding));
    convolution(x, nullptr, ahead, bias.only_if(with_bias), y, images, height, width, inputs, outputs, kernel, padding,
                relu, scratch);
  }
  std::vector<double> truth(y_count);
  for (Index i = 0; i < y_count; i++) truth[i] = with_bias ? bias[i % outputs] : 0;
  shape.products([&](Index y, Index w, Index x_place) { truth[y] += double{weight[w]} * number(x[x_place]); });
  for (double &each : truth) each = relu && each < 0 ? 0 : each;
  compare("convolution", y, truth, coarse ? 0.01 : 0.003);

  {
    Numbers<Number> scratch(scratch_of(images, y_height, y_width, outputs, kernel, kernel - 1 - padding));
    convolution(dy, mask.only_if(masked), back, nullptr, dx, images, y_height, y_width, outputs, inputs, kernel,
                kernel - 1 - padding, false, scratch);
  }
  Numbers<bfloat16> counted(y_count);
  for (Index i = 0; i < y_count; i++) counted[i] = masked ? positive(mask[i], dy[i]) : dy[i];
  std::vector<double> dx_truth(x_count), dw_truth(weights);
  shape.products([&](Index y, Index w, Index x_place) {
    const double slope = number(counted[y]);
    dx_truth[x_place] += slope * weight[w], dw_truth[w] += slope * number(x[x_place]);
  });
  compare("gradient of the input", dx, dx_truth, coarse ? 0.01 : 0.003);

  Numbers<float> sums(functions.of<Index(int, int, int)>("weight_gradient_sums")(kernel, inputs, outputs),
                      [] { return 0.0f; });
  Numbers<float> db(outputs, [] { return 0.0f; }), dw(weights);
  Numbers<Number> scratch(functions.of<Index(int, int, int, int, int, int)>("weight_gradient_scratch")(
      height, width, inputs, outputs, kernel, padding));
  functions.of<void(Values, Values, Optional<const bfloat16>, float *, Optional<float>, Index, int, int, int, int, int,
                    int, Number *)>("weight_gradient")(x, dy, mask.only_if(masked), sums, db.only_if(with_bias), images,
                                                       height, width, inputs, outputs, kernel, padding, scratch);
  functions.of<void(const float *, float *, int, int, int)>("transform_weight_gradient")(sums, dw, inputs, outputs,
                                                                                         kernel);
  compare("gradient of the weights", dw, dw_truth, coarse ? 0.01 : 1e-5);
  if (with_bias) compare("gradient of the bias", db, bias_gradient(counted, outputs), 1e-5);
}

void check_stem(Functions &functions, Random &random) {
  const Shape shape = Shape::drawn(random, true);
  const auto [images, height, width, inputs, outputs, kernel, padding, y_height, y_width, x_count, y_count, weights] =
      shape;
  const bool relu = random.coin(), with_bias = random.coin(), masked = random.coin();
  const int taps = kernel * kernel * inputs;
  const float offset = random.from(0, 100), scale = random.from(50, 100);
  const auto draw = [&] { return rounded(random.normal()); };
  Numbers<float> x(x_count, [&] { return static_cast<float>(random.from(0, 255)); });
  Numbers<float> weight(weights, [&] { return random.normal(); }), bias(outputs, [&] { return random.normal(); });
  Numbers<bfloat16> y(y_count), dy(y_count, draw), mask(y_count, draw);
  Numbers<float> scratch(Index{height + 2 * padding} * (width + 2 * padding) * inputs);
  functions.of<void(const float *, float, float, const float *, Optional<const float>, bfloat16 *, Index, int, int, int,
                    int, int, int, bool, float *)>("stem")(x, offset, scale, weight, bias.only_if(with_bias), y, images,
                                                           height, width, inputs, outputs, kernel, padding, relu,
                                                           scratch);
  Numbers<float> sums(weights, [] { return 0.0f; }), db(outputs, [] { return 0.0f; }), dw(weights);
  functions.of<void(const float *, float, float, Values, Optional<const bfloat16>, float *, Optional<float>, Index, int,
                    int, int, int, int, int, float *)>("stem_weight_gradient")(
      x, offset, scale, dy, mask.only_if(masked), sums, db.only_if(with_bias), images, height, width, inputs, outputs,
      kernel, padding, scratch);
  functions.of<void(const float *, float *, int, int)>("transpose")(sums, dw, taps, outputs);

  Numbers<bfloat16> counted(y_count);
  for (Index i = 0; i < y_count; i++) counted[i] = masked ? positive(mask[i], dy[i]) : dy[i];
  std::vector<double> truth(y_count), dw_truth(weights);
  for (Index i = 0; i < y_count; i++) truth[i] = with_bias ? bias[i % outputs] : 0;
  shape.products([&](Index y, Index w, Index x_place) {
    const double pixel = (double{x[x_place]} - offset) / scale;
    truth[y] += weight[w % taps * shape.outputs + w / taps] * pixel; /* these are (tap, output) */
    dw_truth[w] += number(counted[y]) * pixel;
  });
  for (double &each : truth) each = relu && each < 0 ? 0 : each;
  compare("stem", y, truth, 0.003);
  compare("gradient of the weights", dw, dw_truth, 1e-5);
  if (with_bias) compare("gradient of the bias", db, bias_gradient(counted, outputs), 1e-5);
}

void check_norm(Functions &functions, Random &random) {
  const int channels = 16 * random.from(1, 8), rows = random.from(8, 600);
  const Index count = Index{rows} * channels;
  const bool relu = random.coin();
  const float epsilon = 1e-3f, momentum = 0.1f, middle = random.normal();
  const auto draw = [&] { return random.normal(); };
  Numbers<bfloat16> x(count, [&] { return rounded(2 * random.normal() + middle); });
  Numbers<bfloat16> dz(count, [&] { return rounded(random.normal()); }), z(count), scaled(count), dx(count);
  Numbers<float> gamma(channels, draw), beta(channels, draw), mean(channels, draw), variance(channels, draw);
  const std::vector<double> old_mean(mean.begin(), mean.end()), old_variance(variance.begin(), variance.end());
  Numbers<float> statistics(4 * channels), dgamma(channels), dbeta(channels);
  Numbers<double> sums(2 * channels), scratch(3 * channels);
  functions.of<void(Values, const float *, const float *, float, float, float *, float *, double *, float *, bfloat16 *,
                    Index, int, bool)>("batch_norm")(x, gamma, beta, epsilon, momentum, mean, variance, sums,
                                                     statistics, z, rows, channels, relu);
  functions.of<void(Values, const float *, const float *, bfloat16 *, Index, int, bool)>("scale_and_shift")(
      x, statistics + 2 * channels, statistics + 3 * channels, scaled, rows, channels, relu);
  functions.of<void(Values, Values, const float *, float, double *, float *, float *, bfloat16 *, Index, int, bool)>(
      "batch_norm_gradient")(x, dz, statistics, epsilon, scratch, dgamma, dbeta, dx, rows, channels, relu);

  std::vector<double> z_truth(count), dx_truth(count), mean_truth, variance_truth, dgamma_truth, dbeta_truth;
  for (int c = 0; c < channels; c++) {
    double total = 0, squares = 0, slopes = 0, products = 0;
    for (Index i = c; i < count; i += channels) total += number(x[i]);
    const double average = total / rows;
    for (Index i = c; i < count; i += channels) squares += std::pow(number(x[i]) - average, 2);
    const double deviation = std::sqrt(squares / rows + epsilon);
    const auto normal = [&](Index i) { return (number(x[i]) - average) / deviation; };
    const auto slope = [&](Index i) { /* let through by what was computed, since at 0 rounding decides */
                                      return !relu || std::fma(statistics[2 * channels + c], float(number(x[i])),
                                                               statistics[3 * channels + c]) > 0
                                                 ? number(dz[i])
                                                 : 0;
    };
    for (Index i = c; i < count; i += channels) {
      const double value = gamma[c] * normal(i) + beta[c];
      z_truth[i] = relu && value < 0 ? 0 : value, slopes += slope(i), products += slope(i) * normal(i);
    }
    for (Index i = c; i < count; i += channels)
      dx_truth[i] = gamma[c] / deviation * (slope(i) - slopes / rows - normal(i) * products / rows);
    mean_truth.push_back(old_mean[c] + momentum * (average - old_mean[c]));
    variance_truth.push_back(old_variance[c] + momentum * (squares / (rows - 1) - old_variance[c]));
    dgamma_truth.push_back(products), dbeta_truth.push_back(slopes);
  }
  compare("normalised", z, z_truth, 0.004), compare("scaled", scaled, z_truth, 0.004);
  compare("running mean", mean, mean_truth, 1e-5), compare("running variance", variance, variance_truth, 1e-5);
  compare("gradient of the input", dx, dx_truth, 0.005);
  compare("gradient of the scale", dgamma, dgamma_truth, 1e-4);
  compare("gradient of the shift", dbeta, dbeta_truth, 1e-4);
}

void check_pool(Functions &functions, Random &random) {
  const int down = random.from(1, 3), across = random.from(1, 3), channels = 16 * random.from(1, 3);
  const int images = random.from(1, 3), height = random.from(down, 12), width = random.from(across, 12);
  const int y_height = height / down, y_width = width / across;
  const Index x_count = Index{images} * height * width * channels,
              y_count = Index{images} * y_height * y_width * channels;
  Numbers<bfloat16> x(x_count, [&] { return rounded(static_cast<float>(random.from(-3, 3))); }); /* many are equal */
  Numbers<bfloat16> dy(y_count, [&] { return rounded(random.normal()); }), y(y_count), dx(x_count);
  functions.of<void(Values, bfloat16 *, Index, int, int, int, int, int)>("max_pool")(x, y, images, height, width,
                                                                                     channels, down, across);
  functions.of<void(Values, Values, Values, bfloat16 *, Index, int, int, int, int, int)>("max_pool_gradient")(
      x, y, dy, dx, images, height, width, channels, down, across);

  std::vector<bfloat16> y_truth(y_count), dx_truth(x_count, bfloat16{0});
  for (Index i = 0; i < y_count; i++) {
    const Index c = i % channels, w = i / channels % y_width, h = i / channels / y_width % y_height;
    const Index n = i / channels / y_width / y_height;
    Index first = -1;
    for (int j = 0; j < down * across; j++) {
      const Index at = ((n * height + h * down + j / across) * width + w * across + j % across) * channels + c;
      if (first < 0 || number(x[at]) > number(x[first])) first = at;
    }
    y_truth[i] = x[first], dx_truth[first] = dy[i];
  }
  compare_bits("pooled", y, y_truth), compare_bits("gradient", dx, dx_truth);
}

void check_dropout(Functions &functions, Random &random) {
  const Index count = random.from(1, 400);
  const std::int64_t key = static_cast<std::int64_t>(random.bits());
  const int dropped = random.from(0, 65535);
  const float factor = 65536.0f / (65536 - dropped);
  Numbers<bfloat16> x(count, [&] { return rounded(random.normal()); }), y(count), dx(count);
  Numbers<std::int32_t> bits((count + 31) / 32);
  functions.of<void(Values, bfloat16 *, std::int32_t *, Index, std::int64_t, int, float)>("dropout")(
      x, y, bits, count, key, dropped, factor);
  functions.of<void(Values, const std::int32_t *, bfloat16 *, Index, float)>("dropout_gradient")(x, bits, dx, count,
                                                                                                 factor);
  Random seeds{static_cast<std::uint64_t>(key)};
  std::uint64_t s0[8], s1[8];
  for (std::uint64_t &each : s0) each = seeds.bits();
  for (std::uint64_t &each : s1) each = seeds.bits();
  const auto rotated = [](std::uint64_t a, int by) { return a << by | a >> (64 - by); };
  std::vector<std::int32_t> bits_truth(bits.count);
  std::vector<bfloat16> truth(count);
  for (Index word = 0; word < bits.count; word++) {
    std::uint32_t kept = 0;
    for (int stream = 0; stream < 8; stream++) { /* xoroshiro128++, four draws a stream */
      const std::uint64_t drawn = rotated(s0[stream] + s1[stream], 17) + s0[stream];
      s1[stream] ^= s0[stream];
      s0[stream] = rotated(s0[stream], 49) ^ s1[stream] ^ s1[stream] << 21;
      s1[stream] = rotated(s1[stream], 28);
      for (int j = 0; j < 4; j++)
        kept |= static_cast<std::uint32_t>((drawn >> 16 * j & 0xffff) >= static_cast<unsigned>(dropped))
                << (4 * stream + j);
    }
    bits_truth[word] = static_cast<std::int32_t>(kept);
    for (Index i = 32 * word; i < count && i < 32 * word + 32; i++)
      truth[i] = kept >> i % 32 & 1 ? rounded(static_cast<float>(number(x[i])) * factor) : bfloat16{0};
  }
  compare_bits("bits", bits, bits_truth), compare_bits("values", y, truth), compare_bits("gradient", dx, truth);
}

void check_warp(Functions &functions, Random &random) {
  const int images = random.from(1, 3), height = random.from(1, 20), width = random.from(1, 40);
  const int channels = random.one_of(StemChannels{});
  const bool edge = random.coin(), bent = random.coin();
  const Index pixels = Index{height} * width;
  Numbers<float> x(images * pixels * channels, [&] { return static_cast<float>(random.from(0, 255)); });
  Numbers<float> matrices(6 * images, [&] { return 2 * random.normal(); }), y(x.count);
  Numbers<float> bends(2 * images * pixels, [&] { return random.normal(); });
  for (int n = 0; n < images; n++) matrices[6 * n] += 1, matrices[6 * n + 4] += 1;
  functions.of<void(const float *, const float *, Optional<const float>, float *, Index, int, int, int, bool)>("warp")(
      x, matrices, bends.only_if(bent), y, images, height, width, channels, edge);
  std::vector<double> truth(x.count);
  for (Index i = 0; i < x.count; i++) {
    const Index c = i % channels, pixel = i / channels % pixels, n = i / channels / pixels;
    const double w = pixel % width - (width - 1) / 2.0, h = pixel / width - (height - 1) / 2.0;
    const float *m = matrices + 6 * n, *bend = bends + 2 * n * pixels + pixel;
    double sx = m[0] * w + m[1] * h + m[2] + (width - 1) / 2.0 + (bent ? bend[0] : 0);
    double sy = m[3] * w + m[4] * h + m[5] + (height - 1) / 2.0 + (bent ? bend[pixels] : 0);
    if (edge) sx = std::fmin(std::fmax(sx, 0), width - 1), sy = std::fmin(std::fmax(sy, 0), height - 1);
    const double x0 = std::floor(sx), y0 = std::floor(sy);
    for (int j = 0; j < 4; j++) {
      const double column = x0 + j % 2, row = y0 + j / 2,
                   part = (1 - std::fabs(sx - column)) * (1 - std::fabs(sy - row));
      if (column >= 0 && column < width && row >= 0 && row < height)
        truth[i] +=
            part * x[((n * height + static_cast<Index>(row)) * width + static_cast<Index>(column)) * channels + c];
    }
  }
  compare("warped", y, truth, 1e-4);
}

void check_optimisers(Functions &functions, Random &random) {
  const Index count = random.from(1, 200);
  const float rate = 2e-3f, mean_rate = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, correction = 0.3f, epsilon = 1e-7f;
  const float decay = random.coin() ? 0.01f : 0, rho = 0.95f;
  const auto draw = [&] { return random.normal(); };
  const auto square = [&] { return std::fabs(random.normal()) + 0.01f; };
  Numbers<float> p(count, draw), q(count, draw), g(count, draw), m(count, draw);
  Numbers<float> v(count, square), v2(count, square), a(count, square);
  std::vector<double> p_truth, m_truth, v_truth, q_truth, v2_truth, a_truth;
  for (Index i = 0; i < count; i++) {
    const double slope = g[i] + double{decay} * p[i];
    m_truth.push_back(m[i] + (1.0 - beta1) * (slope - m[i]));
    v_truth.push_back(v[i] + (1.0 - beta2) * (slope * slope - v[i]));
    p_truth.push_back(p[i] - (rate * slope + mean_rate * m_truth[i]) / (std::sqrt(v_truth[i] / correction) + epsilon));
    const double other = g[i] + double{decay} * q[i];
    v2_truth.push_back(v2[i] + (1.0 - rho) * (other * other - v2[i]));
    const double update = other * std::sqrt((a[i] + double{epsilon}) / (v2_truth[i] + epsilon));
    a_truth.push_back(a[i] + (1.0 - rho) * (update * update - a[i]));
    q_truth.push_back(q[i] - rate * update);
  }
  functions.of<void(float *, const float *, float *, float *, Index, float, float, float, float, float, float, float)>(
      "nadam")(p, g, m, v, count, rate, mean_rate, beta1, beta2, correction, epsilon, decay);
  functions.of<void(float *, const float *, float *, float *, Index, float, float, float, float)>("adadelta")(
      q, g, v2, a, count, rate, rho, epsilon, decay);
  compare("Nadam's step", p, p_truth, 1e-6);
  compare("its mean", m, m_truth, 1e-6), compare("its square", v, v_truth, 1e-6);
  compare("Adadelta's step", q, q_truth, 1e-6), compare("its square", v2, v2_truth, 1e-6);
  compare("its update", a, a_truth, 1e-6);
}

/* --- the program -------------------------------------------------------------------------------------------------- */

struct Check {
  const char *name;
  void (*run)(Functions &, Random &);
};

int check(const Path &path, std::uint64_t seed, int shapes) {
  const Check checks[] = {
      {"convolution", path.bfloat16_products ? check_convolution<bfloat16> : check_convolution<float>},
      {"stem", check_stem},
      {"normalisation", check_norm},
      {"pooling", check_pool},
      {"dropout", check_dropout},
      {"warp", check_warp},
      {"optimisers", check_optimisers},
  };
  Functions functions{path.functions(), {}};
  Digest all;
  for (const Check &each : checks) {
    digest = {};
    for (int shape = 0; shape < shapes; shape++) {
      now = std::string(path.name) + ", " + each.name + ", seed " + std::to_string(seed) + ", shape " +
            std::to_string(shape);
      Random random{seed + 0x100000001b3u * static_cast<std::uint64_t>(shape)};
      each.run(functions, random);
    }
    std::printf("%-16s %016llx\n", each.name, static_cast<unsigned long long>(digest.value));
    all.add(&digest.value, sizeof digest.value);
  }
  now = path.name;
  for (int i = 0; i < functions.table.count; i++)
    if (const std::string name = functions.table.functions[i].name; !functions.called.count(name))
      fail("no check calls " + name + "; add one to check.cpp");
  std::printf("%-16s %016llx\n", path.name, static_cast<unsigned long long>(all.value));
  return 0;
}

} // namespace

int main(int count, char **arguments) {
  const PathList list = all_paths();
  for (const Path *path = list.paths; path < list.paths + list.count; path++) {
    if (count != 4) std::printf("%s %s\n", path->name, path->supported() ? "supported" : "not supported");
    if (count == 4 && !std::strcmp(path->name, arguments[1])) {
      if (!path->supported()) return std::printf("this CPU lacks %s\n", path->name), 1;
      return check(*path, std::strtoull(arguments[2], nullptr, 10), std::atoi(arguments[3]));
    }
  }
  return count == 4;
}
