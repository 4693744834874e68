// The lattices of the IQ formats: a group of 8 (or 4) weights is one point of a short list, so that fewer than 3 bits
// per weight still reach the magnitudes that occur together. Which points are in a list is a fact of the file format.
#ifndef UPDRAFT_KERNELS_FORMATS_GRIDS_H_
#define UPDRAFT_KERNELS_FORMATS_GRIDS_H_

#include <cstdint>

namespace updraft::kernels {

// Points as digits; see grids.cc for how many bits a digit has and what it stands for.
extern const uint16_t kGridIq2Xxs[256];
extern const uint16_t kGridIq2Xs[512];
extern const uint16_t kGridIq2S[1024];
extern const uint16_t kGridIq3Xxs[256];
extern const uint16_t kGridIq3S[512];
extern const uint16_t kGridIq1[2048];

// Magnitude of the i-th weight, i in [0, 8), of a point of the iq2 lists.
constexpr int Iq2Value(uint16_t point, int i) {
  constexpr int kLevels[4] = {8, 25, 43, 0};
  return kLevels[point >> (2 * i) & 3];
}

// Of a point of kGridIq3Xxs, i in [0, 4).
constexpr int Iq3XxsValue(uint16_t point, int i) {
  constexpr int kLevels[8] = {4, 12, 20, 28, 36, 44, 52, 62};
  return kLevels[point >> (3 * i) & 7];
}

// Of a point of kGridIq3S, i in [0, 4).
constexpr int Iq3SValue(uint16_t point, int i) { return 2 * (point >> (3 * i) & 7) + 1; }

// -1, 0 or 1: the i-th weight, i in [0, 8), of a point of kGridIq1.
constexpr int Iq1Value(uint16_t point, int i) { return (point >> (2 * i) & 3) - 1; }

// Seven signs as bits; the eighth makes the number of minus signs even.
constexpr uint8_t EvenSigns(int seven) {
  int parity = seven;
  parity ^= parity >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return static_cast<uint8_t>(seven | (parity & 1) << 7);
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_GRIDS_H_
