/* What the checks of check.cpp are made of: numbers between guards, draws, comparisons, a path's functions by name. */
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "shapes.h"
#include "targets.h"

namespace {

/* --- what goes in and comes out ----------------------------------------------------------------------------------- */

std::string now; /* the check and the shape, for a failure */

[[noreturn]] void fail(const std::string &why) {
  std::printf("%s: %s\n", now.c_str(), why.c_str());
  std::exit(1);
}

struct Digest { /* FNV-1a */
  std::uint64_t value = 0xcbf29ce484222325u;

  void add(const void *from, std::size_t bytes) {
    for (const auto *byte = static_cast<const unsigned char *>(from), *end = byte + bytes; byte < end; byte++)
      value = (value ^ *byte) * 0x100000001b3u;
  }
} digest;

/* Numbers that the functions read or write, between guards of a cache line, or of nothing with a sanitizer. */
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t GUARD = 0;
#else
constexpr std::size_t GUARD = 64;
#endif
constexpr unsigned char UNTOUCHED = 0x5a;

template <class T> class Numbers {
 public:
  const Index count;

  explicit Numbers(Index count) : count(count), memory(2 * GUARD + sizeof(T) * count, UNTOUCHED) {}
  template <class Draw> Numbers(Index count, Draw &&draw) : Numbers(count) {
    for (T &each : *this) each = draw();
  }
  Numbers(const Numbers &) = delete;
  ~Numbers() {
    for (std::size_t i = 0; i < GUARD; i++)
      if (memory[i] != UNTOUCHED || memory[memory.size() - 1 - i] != UNTOUCHED) fail("wrote outside an output");
  }
  T *begin() { return reinterpret_cast<T *>(memory.data() + GUARD); }
  T *end() { return begin() + count; }
  operator T *() { return begin(); }
  T *only_if(bool given) { return given ? begin() : nullptr; }

 private:
  std::vector<unsigned char> memory;
};

double number(bfloat16 value) {
  const std::uint32_t bits = std::uint32_t{value.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
double number(double value) { return value; }

bfloat16 rounded(float value) { /* to nearest, ties to even */
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

/* The same draws on every machine. */
struct Random {
  std::uint64_t state;

  std::uint64_t bits() { /* SplitMix64, Steele, Lea & Flood 2014 */
    std::uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int from(int least, int most) { return least + static_cast<int>(bits() % (most - least + 1)); }
  bool coin() { return bits() >> 63; }
  float normal() { /* nearly, by the sum of three: mean 0, variance 1 */
    const std::uint64_t drawn = bits();
    const auto third = [&](int place) { return static_cast<std::int32_t>(drawn >> 21 * place & 0x1fffff); };
    return static_cast<float>(third(0) + third(1) + third(2) - 3 * 0x100000) / 0x100000;
  }
  template <int... Values> int one_of(List<Values...>) {
    return List<Values...>::values[from(0, sizeof...(Values) - 1)];
  }
};

/* Adds an output to the digest, and compares it with its true values: the norm of the errors, relative to theirs. */
template <class T> void compare(const char *what, Numbers<T> &ours, const std::vector<double> &truth, double most) {
  digest.add(ours, sizeof(T) * ours.count);
  double errors = 0, values = 0;
  for (Index i = 0; i < ours.count; i++) {
    const double error = number(ours[i]) - truth[i];
    errors += error * error, values += truth[i] * truth[i];
  }
  if (!(std::sqrt(errors) <= most * std::sqrt(values) + 1e-6))
    fail(std::string(what) + ": relative error " + std::to_string(std::sqrt(errors / values)) + ", more than " +
         std::to_string(most));
}

template <class T> void compare_bits(const char *what, Numbers<T> &ours, const std::vector<T> &truth) {
  digest.add(ours, sizeof(T) * ours.count);
  if (std::memcmp(ours, truth.data(), sizeof(T) * ours.count) != 0) fail(std::string(what) + ": other bits");
}

/* --- the path's functions ----------------------------------------------------------------------------------------- */

struct Functions {
  FunctionTable table;
  std::set<std::string> called;

  /* The function of this name, whose C++ type must be this one. */
  template <class Signature> auto of(const char *name) { return found(name, static_cast<Signature *>(nullptr)); }

 private:
  template <class Result, class... Parameters> auto found(const char *name, Result (*)(Parameters...)) {
    constexpr Type expected[] = {Described<Parameters>::type...};
    constexpr int count = sizeof...(Parameters);
    for (const Function *each = table.functions; each < table.functions + table.count; each++)
      if (!std::strcmp(each->name, name)) {
        bool same = each->parameter_count == count && same_element(each->result.element, element_name<Result>);
        for (int i = 0; same && i < count; i++)
          same = same_element(each->parameters[i].element, expected[i].element) &&
                 each->parameters[i].pointer == expected[i].pointer &&
                 each->parameters[i].constant == expected[i].constant &&
                 each->parameters[i].optional == expected[i].optional;
        if (!same) fail(std::string(name) + " has other parameters than check.cpp gives it");
        called.insert(name);
        return reinterpret_cast<Result (*)(typename Described<Parameters>::Passed...)>(each->address);
      }
    fail("no function " + std::string(name));
  }
  static bool same_element(const char *a, const char *b) { return !std::strcmp(a, b); }
};

} // namespace
