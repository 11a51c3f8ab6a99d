/* The functions of the paths that multiply floats: convolutions by tiles of squares, the other layers as on all. */
#pragma once
#include "functions.h"
#include "square_weight_gradient.h"

namespace {

FunctionTable square_functions() {
  static const std::array<Function, 8> convolutions{{
      exported<by_squares::convolution>("convolution"),
      exported<by_squares::convolution_scratch>("convolution_scratch"),
      exported<by_squares::filter_numbers>("filter_numbers"),
      exported<by_squares::transform_filters>("transform_filters"),
      exported<by_squares::weight_gradient>("weight_gradient"),
      exported<by_squares::weight_gradient_scratch>("weight_gradient_scratch"),
      exported<by_squares::weight_gradient_sums>("weight_gradient_sums"),
      exported<by_squares::transform_weight_gradient>("transform_weight_gradient"),
  }};
  static const auto functions = joined(convolutions, dense_functions<float>(), layer_functions());
  return table_of(functions);
}

} // namespace
