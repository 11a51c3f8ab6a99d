/* The inner loops of training on CPUs: convolution, normalisation, pooling, dropout, optimisers, maps of images.
 *
 * Images are (image, height, width, channel), values bfloat16, sums float32. Everything runs in the calling thread and
 * adds in a fixed order, so equal calls give equal bits. Which products and sums are fused is said in the source, and
 * the compiler is told to fuse no others (-ffp-contract=off), since that decides last bits.
 *
 * How the files fit:
 *
 *   shapes.h, table.h     the shapes that have a kernel; the table that Python binds (binding.py)
 *   simd_avx512.h         the vector layer: all that depends on the instruction set
 *   winograd.h            tiles of rows and their transforms, F(4, 3) and F(2, 5)
 *   convolution.h, weight_gradient.h      the convolutions but the first, of bfloat16 or of float32 products
 *   stem.h, layers.h, training.h          the first convolution; the other layers; optimisers and maps of images
 *   functions.h           this one, the functions of one path
 *   avx512bf16.cpp        compiles them for the path of that name
 *   targets.h, targets.cpp                the paths there are; which CPUs have them and prefer them
 *   module.cpp            the Python module; binding.py chooses a path
 *
 * To add a path, say AVX2:
 *
 *   1. simd_avx2.h with the types and functions of simd_avx512.h: Floats (always 16 floats, here two registers of
 *      eight), Mask (an unsigned integer with a bit for each of them), Ints, RandomStreams, MOST_SUMS (6, which are 12
 *      of its 16 registers), Products<float> or Products<bfloat16>, and Product, the one of them that is used.
 *   2. avx2.cpp like avx512bf16.cpp, and both files in pyproject.toml, under `sources` and `depends`.
 *   3. In targets.h, a macro COMMITTEE_AVX2 for the architectures and compilers that can make it, and its function; in
 *      targets.cpp, which CPUs have it and prefer it, and its row among PATHS.
 *
 * Values between layers are bfloat16 on every path. A unit of matrices such as AMX replaces more than the dot product:
 * multiply_tiles and sum_products, and the layout that transform_filters writes. Include a vector layer before this.
 */
#pragma once
#include "dense.h"
#include "layers.h"
#include "stem.h"
#include "training.h"
#include "weight_gradient.h"

namespace {

FunctionTable all_functions() {
  static const Function functions[] = {
      exported<convolution<Product>>("convolution"),
      exported<convolution_scratch<Product>>("convolution_scratch"),
      exported<weight_gradient<Product>>("weight_gradient"),
      exported<weight_gradient_scratch>("weight_gradient_scratch"),
      exported<transform_weight_gradient>("transform_weight_gradient"),
      exported<transform_filters<Product>>("transform_filters"),
      exported<dense<Product>>("dense"),
      exported<dense_scratch>("dense_scratch"),
      exported<dense_gradient<Product>>("dense_gradient"),
      exported<dense_gradient_scratch>("dense_gradient_scratch"),
      exported<pack_dense<Product>>("pack_dense"),
      exported<stem>("stem"),
      exported<stem_weight_gradient>("stem_weight_gradient"),
      exported<transpose>("transpose"),
      exported<scale_and_shift>("scale_and_shift"),
      exported<batch_norm>("batch_norm"),
      exported<batch_norm_gradient>("batch_norm_gradient"),
      exported<max_pool>("max_pool"),
      exported<max_pool_gradient>("max_pool_gradient"),
      exported<dropout>("dropout"),
      exported<dropout_gradient>("dropout_gradient"),
      exported<warp>("warp"),
      exported<nadam>("nadam"),
      exported<adadelta>("adadelta"),
  };
  return {functions, static_cast<int>(sizeof functions / sizeof *functions)};
}

} // namespace
