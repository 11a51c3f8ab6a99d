/* The functions of the paths that multiply floats: convolutions by tiles of squares, the other layers as on all. */
#pragma once
#include "functions.h"
#include "square_weight_gradient.h"

namespace {

FunctionTable square_functions() {
  return all_functions({
      exported<by_squares::convolution>("convolution"),
      exported<by_squares::convolution_scratch>("convolution_scratch"),
      exported<by_squares::filter_numbers>("filter_numbers"),
      exported<by_squares::transform_filters>("transform_filters"),
      exported<by_squares::weight_gradient>("weight_gradient"),
      exported<by_squares::weight_gradient_scratch>("weight_gradient_scratch"),
      exported<by_squares::weight_gradient_sums>("weight_gradient_sums"),
      exported<by_squares::transform_weight_gradient>("transform_weight_gradient"),
  });
}

} // namespace
