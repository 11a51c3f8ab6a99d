/* The inner loops of training on CPUs: convolution, normalisation, pooling, dropout, optimisers, maps of images.
 *
 * Images are (image, height, width, channel), values bfloat16, sums float32. Everything runs in the calling thread and
 * adds in a fixed order, so equal calls give equal bits. Which products and sums are fused is said in the source, and
 * the compiler is told to fuse no others (-ffp-contract=off), since that decides last bits.
 *
 * How the files fit:
 *
 *   shapes.h, table.h     the shapes that have a kernel; the table that Python binds (binding.py)
 *   simd_avx512.h, simd_avx2.h, simd_neon.h       the vector layers: all that depends on the instruction set
 *   products.h            what they multiply; products of floats
 *   winograd.h            tiles of rows and their transforms, F(4, 3) and F(2, 5)
 *   convolution.h, weight_gradient.h      the convolutions but the first, where products are of bfloat16
 *   square_tiles.h, square_convolution.h, square_weight_gradient.h, square_functions.h      where they are of floats
 *   tiles.h, tile_convolution.h, tile_weight_gradient.h, tile_dense.h         the same by AMX's matrix unit, directly
 *   tile_functions.h      the functions of a path with that unit
 *   stem.h, layers.h, training.h          the first convolution; the other layers; optimisers and maps of images
 *   functions.h           this one, the functions of one path
 *   avx512bf16.cpp, avx512.cpp, avx2.cpp, neonbf16.cpp, neon.cpp  compile them for the path of that name
 *   targets.h, targets.cpp                the paths there are; which CPUs have them and prefer them
 *   module.cpp            the Python module; binding.py chooses a path
 *
 * To add a path:
 *
 *   1. A vector layer like simd_avx2.h: Floats (always 16 floats, there two registers of eight), Mask (an unsigned
 *      integer with a bit for each of them), Ints, RandomStreams (the same draws everywhere), MOST_SUMS (6 with AVX2,
 *      which are 12 of its 16 registers), Products<float> or Products<bfloat16>, and Product, the one that is used.
 *   2. NAME.cpp like avx2.cpp, and both files in pyproject.toml, under `sources` and `depends`.
 *   3. In targets.h, a macro COMMITTEE_NAME for the architectures and compilers that can make it, and its function; in
 *      targets.cpp, which CPUs have it and prefer it, and its row among PATHS.
 *
 * Values between layers are bfloat16 on every path. A unit of matrices replaces more than the dot product: all
 * functions of convolutions and dense layers, as tile_functions.h does. Include a vector layer before this.
 */
#pragma once
#include <array>
#include "dense.h"
#include "layers.h"
#include "stem.h"
#include "training.h"
#include "weight_gradient.h"

namespace {

template <std::size_t... Counts>
std::array<Function, (Counts + ...)> joined(const std::array<Function, Counts> &...groups) {
  std::array<Function, (Counts + ...)> all;
  std::size_t place = 0;
  const auto append = [&](const auto &group) {
    for (std::size_t i = 0; i < group.size(); i++) all[place++] = group[i];
  };
  (append(groups), ...);
  return all;
}

template <std::size_t Count> FunctionTable table_of(const std::array<Function, Count> &functions) {
  return {functions.data(), static_cast<int>(Count)};
}

/* A path's functions in groups: those of its convolutions, of its dense layers, and what the vector layer has on every
 * path. Templates, so that a path with other ones does not compile them. */
std::array<Function, 14> layer_functions() {
  return {{
      exported<stem>("stem"),
      exported<stem_weight_gradient>("stem_weight_gradient"),
      exported<transpose>("transpose"),
      exported<scale_and_shift>("scale_and_shift"),
      exported<batch_norm>("batch_norm"),
      exported<batch_norm_gradient>("batch_norm_gradient"),
      exported<max_pool>("max_pool"),
      exported<max_pool_choosing>("max_pool_choosing"),
      exported<max_pool_gradient>("max_pool_gradient"),
      exported<dropout>("dropout"),
      exported<dropout_gradient>("dropout_gradient"),
      exported<warp>("warp"),
      exported<nadam>("nadam"),
      exported<adadelta>("adadelta"),
  }};
}

template <class Number> std::array<Function, 6> dense_functions() {
  return {{
      exported<dense<Number>>("dense"),
      exported<dense_scratch>("dense_scratch"),
      exported<dense_gradient<Number>>("dense_gradient"),
      exported<dense_gradient_scratch>("dense_gradient_scratch"),
      exported<dense_numbers>("dense_numbers"),
      exported<pack_dense<Number>>("pack_dense"),
  }};
}

template <class Number = Product> FunctionTable all_functions() {
  static const std::array<Function, 8> convolutions{{
      exported<convolution<Number>>("convolution"),
      exported<convolution_scratch<Number>>("convolution_scratch"),
      exported<filter_numbers>("filter_numbers"),
      exported<weight_gradient<Number>>("weight_gradient"),
      exported<weight_gradient_scratch>("weight_gradient_scratch"),
      exported<weight_gradient_sums>("weight_gradient_sums"),
      exported<transform_weight_gradient>("transform_weight_gradient"),
      exported<transform_filters<Number>>("transform_filters"),
  }};
  static const auto functions = joined(convolutions, dense_functions<Number>(), layer_functions());
  return table_of(functions);
}

} // namespace
