/* The shapes that have a kernel, each list written once: templates are instantiated from it, and Python reads it. */
#pragma once
#include <type_traits>
#include <utility>

#define INLINE [[gnu::always_inline]] inline
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

template <int... Values> struct List {
  static constexpr int size = sizeof...(Values);
  static constexpr int values[] = {Values...};
};

#ifndef COMMITTEE_CHANNELS /* tests/test_kernels_native.py compiles fewer */
#define COMMITTEE_CHANNELS 16, 32, 48, 64, 96, 128
#endif
using Channels = List<COMMITTEE_CHANNELS>; /* of a convolution's input and output, the first one's input aside */
using KernelSizes = List<3, 5>;            /* pixels, of a square kernel */
using StemChannels = List<1, 3>;           /* of the first convolution's input */
constexpr int TRANSFORM_POINTS = 6;        /* points that stand for a full tile, see winograd.h */

/* Calls function with the list's value that equals `value`, as a compile-time constant; with none if none does. */
template <int... Values, class Function> INLINE void with_constant(List<Values...>, int value, Function &&function) {
  (void)((value == Values && (function(std::integral_constant<int, Values>{}), true)) || ...);
}

/* Calls function with 0 ... Count - 1 as compile-time constants: a loop over an array that is to live in registers. */
template <class Function, int... I> INLINE void unrolled(Function &function, std::integer_sequence<int, I...>) {
  (function(std::integral_constant<int, I>{}), ...);
}
template <int Count, class Function> INLINE void unrolled(Function &&function) {
  unrolled(function, std::make_integer_sequence<int, Count>{});
}

/* Where a list has `value`. */
template <class List> constexpr int position(int value) {
  for (int i = 0; i < List::size; i++)
    if (List::values[i] == value) return i;
  return -1;
}

} // namespace
