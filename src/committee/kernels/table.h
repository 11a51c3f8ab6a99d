/* The table of functions that Python calls: names, addresses, and types taken from the functions themselves.
 *
 * exported<function>("name") deduces the result and the parameters, so that they are spelled where the function is
 * defined and nowhere else; binding.py makes its checks and its ctypes signatures of what it finds here. A parameter of
 * a type that has no name below does not compile. Each is there for a second caller, too, which has all arguments in a
 * list: programs.cpp.
 */
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

using Index = std::int64_t; /* a number of values, or a place among them */

struct bfloat16 {
  std::uint16_t bits;
};

/* A parameter that may be absent. */
template <class Element> struct Optional {
  Element *values;
};

struct Type {
  const char *element;
  bool pointer, constant, optional;
};

struct Function {
  const char *name;
  void (*address)();
  void (*from_list)(const Index *arguments); /* each in eight bytes, of which its type takes the first */
  Type result;
  const Type *parameters;
  int parameter_count;
};

struct FunctionTable {
  const Function *functions;
  int count;
};

/* What an element is called: torch's name where there is one. */
template <class T> constexpr const char *element_name = nullptr;
template <> inline constexpr const char *element_name<void> = "void";
template <> inline constexpr const char *element_name<bool> = "bool";
template <> inline constexpr const char *element_name<std::int16_t> = "int16";
template <> inline constexpr const char *element_name<std::int32_t> = "int32";
template <> inline constexpr const char *element_name<std::int64_t> = "int64";
template <> inline constexpr const char *element_name<bfloat16> = "bfloat16";
template <> inline constexpr const char *element_name<float> = "float32";
template <> inline constexpr const char *element_name<double> = "float64";

/* Described: the type as Python sees it, and as it is passed through the C calling convention. */
template <class T> struct Described {
  static_assert(element_name<T> != nullptr, "this type has no name in table.h");
  using Passed = T;
  static constexpr Type type{element_name<T>, false, false, false};
  [[gnu::always_inline]] static constexpr T received(T value) { return value; }
};
template <class T> struct Described<T *> {
  static_assert(element_name<T> != nullptr, "this type has no name in table.h");
  using Passed = T *;
  static constexpr Type type{element_name<T>, true, false, false};
  [[gnu::always_inline]] static constexpr T *received(T *address) { return address; }
};
template <class T> struct Described<const T *> {
  static_assert(element_name<T> != nullptr, "this type has no name in table.h");
  using Passed = const T *;
  static constexpr Type type{element_name<T>, true, true, false};
  [[gnu::always_inline]] static constexpr const T *received(const T *address) { return address; }
};
template <class T> struct Described<Optional<T>> {
  using Passed = T *;
  static constexpr Type type{Described<T *>::type.element, true, Described<T *>::type.constant, true};
  [[gnu::always_inline]] static constexpr Optional<T> received(T *address) { return {address}; }
};

template <auto function> struct Exported;
template <class Result, class... Parameters, Result (*function)(Parameters...)> struct Exported<function> {
  static constexpr Type result{element_name<Result>, false, false, false};
  static constexpr Type parameters[] = {Described<Parameters>::type...};
  static Result call(typename Described<Parameters>::Passed... arguments) {
    return function(Described<Parameters>::received(arguments)...);
  }
  static void call_from_list(const Index *arguments) {
    call_from_list(arguments, std::make_index_sequence<sizeof...(Parameters)>{});
  }

private:
  template <std::size_t... Place>
  [[gnu::always_inline]] static void call_from_list(const Index *arguments, std::index_sequence<Place...>) {
    function(Described<Parameters>::received(read<typename Described<Parameters>::Passed>(arguments + Place))...);
  }
  template <class T> [[gnu::always_inline]] static T read(const Index *from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
};

template <auto function> Function exported(const char *name) {
  using Entry = Exported<function>;
  return {name, reinterpret_cast<void (*)()>(&Entry::call), &Entry::call_from_list, Entry::result, Entry::parameters,
          static_cast<int>(sizeof Entry::parameters / sizeof *Entry::parameters)};
}
