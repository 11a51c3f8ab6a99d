/* The functions of the paths with tiles: convolutions and dense layers by tiles, the others by the vector layer. */
#pragma once
#include "functions.h"
#include "tile_dense.h"

namespace {

template <class Tiles> FunctionTable tile_functions() {
  static const std::array<Function, 14> products{{
      exported<by_tiles::convolution<Tiles>>("convolution"),
      exported<by_tiles::convolution_scratch>("convolution_scratch"),
      exported<by_tiles::filter_numbers>("filter_numbers"),
      exported<by_tiles::transform_filters>("transform_filters"),
      exported<by_tiles::weight_gradient<Tiles>>("weight_gradient"),
      exported<by_tiles::weight_gradient_scratch>("weight_gradient_scratch"),
      exported<by_tiles::weight_gradient_sums>("weight_gradient_sums"),
      exported<by_tiles::transform_weight_gradient>("transform_weight_gradient"),
      exported<by_tiles::dense<Tiles>>("dense"),
      exported<by_tiles::dense_scratch>("dense_scratch"),
      exported<by_tiles::dense_gradient<Tiles>>("dense_gradient"),
      exported<by_tiles::dense_gradient_scratch>("dense_gradient_scratch"),
      exported<by_tiles::dense_numbers>("dense_numbers"),
      exported<by_tiles::pack_dense>("pack_dense"),
  }};
  static const auto functions = joined(products, layer_functions());
  return table_of(functions);
}

} // namespace
