// Random numbers for random weights: the same on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace updraft {

// SplitMix64 (Steele, Lea and Flood 2014): one state per piece of work, so pieces can be filled in any order.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  float Normal() {
    const double u = (static_cast<double>(Next() >> 11) + 0.5) * 0x1p-53;
    const double v = static_cast<double>(Next() >> 11) * 0x1p-53;
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
  }

 private:
  uint64_t state_;
};

}  // namespace updraft
