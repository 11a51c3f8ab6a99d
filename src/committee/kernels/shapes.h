/* The shapes that have a kernel, each list written once: templates are instantiated from it, and Python reads it. */
#pragma once
#include <type_traits>
#include <utility>
#include "table.h"

#define INLINE [[gnu::always_inline]] inline
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

template <int... Values> struct List {
  static constexpr int size = sizeof...(Values);
  static constexpr int values[] = {Values...};
};

using Channels = List<16, 32, 48, 64, 96, 128>; /* of a convolution's input and output, the first one's input aside */
using KernelSizes = List<3, 5>;                 /* pixels, of a square kernel */
using StemChannels = List<1, 3>;                /* of the first convolution's input */
constexpr int TRANSFORM_POINTS = 6;             /* points that stand for a full tile, see winograd.h */

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

/* Calls function(first, number) for parts of a count, none longer than `most`, all about as long. */
template <class Function> INLINE void in_equal_parts(Index count, Index most, Function &&function) {
  for (Index first = 0, parts = (count + most - 1) / most; parts > 0; parts--) {
    const Index number = (count - first + parts - 1) / parts;
    function(first, number);
    first += number;
  }
}

} // namespace
