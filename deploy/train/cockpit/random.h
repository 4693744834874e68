#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_RANDOM_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_RANDOM_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace updraft::cockpit {

// SplitMix64 (Steele, Lea, Flood 2014). The standard library's distributions differ between implementations, so the
// generator and the trainer draw every number from here: one seed gives the same data on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // Uniform in [0, n); n > 0. The bias of the multiply-shift is below n / 2^32.
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(((Next() >> 32) * n) >> 32); }
  // Uniform in [low, high].
  int Between(int low, int high) { return low + static_cast<int>(Below(static_cast<uint32_t>(high - low + 1))); }
  bool Percent(uint32_t percent) { return Below(100) < percent; }
  template <typename T>
  const T& Pick(const std::vector<T>& values) {
    return values[Below(static_cast<uint32_t>(values.size()))];
  }

  uint64_t state() const { return state_; }
  void set_state(uint64_t state) { state_ = state; }

 private:
  uint64_t state_;
};

// FNV-1a with a final avalanche, so that the low bits may be taken modulo small numbers.
inline uint64_t HashBytes(std::string_view bytes, uint64_t seed = 0) {
  uint64_t h = 0xCBF29CE484222325ull ^ (seed * 0x9E3779B97F4A7C15ull);
  for (char c : bytes) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ull;
  h ^= h >> 32;
  h *= 0xD6E8FEB86659FD93ull;
  h ^= h >> 32;
  return h;
}

inline uint64_t HashCombine(uint64_t a, uint64_t b) {
  Random mixed(a ^ (b + 0x9E3779B97F4A7C15ull + (a << 6) + (a >> 2)));
  return mixed.Next();
}

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_RANDOM_H_
