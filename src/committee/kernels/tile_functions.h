/* The functions of the paths with tiles: convolutions by tiles, the other layers by the vector layer. */
#pragma once
#include "functions.h"
#include "tile_weight_gradient.h"

namespace {

template <class Tiles> FunctionTable tile_functions() {
  return all_functions({
      exported<by_tiles::convolution<Tiles>>("convolution"),
      exported<by_tiles::convolution_scratch>("convolution_scratch"),
      exported<by_tiles::filter_numbers>("filter_numbers"),
      exported<by_tiles::transform_filters>("transform_filters"),
      exported<by_tiles::weight_gradient<Tiles>>("weight_gradient"),
      exported<by_tiles::weight_gradient_scratch>("weight_gradient_scratch"),
      exported<by_tiles::weight_gradient_sums>("weight_gradient_sums"),
      exported<by_tiles::transform_weight_gradient>("transform_weight_gradient"),
  });
}

} // namespace
