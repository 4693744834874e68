// Blocks that leave out half of their elements. The other formats are ggml's; these are this project's own, with type
// numbers that no other program gives out.
//
// On a processor that waits for memory, fewer bits per weight beat zeros: both formats take 5.5 bits, a bit more than
// q5_0 takes without leaving anything out. They exist for weights that were pruned anyway, and for devices with sparse
// arithmetic, which take 2 of 4 as it is. A processor lays them out without their zeros where it measures that reading
// less is worth more than putting bytes where they belong (cpu/layout_choice.h), else with them.
#ifndef UPDRAFT_KERNELS_FORMATS_SPARSE_BLOCKS_H_
#define UPDRAFT_KERNELS_FORMATS_SPARSE_BLOCKS_H_

#include <cstdint>

namespace updraft::kernels {

// Of 4 consecutive elements 2 are kept (Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks"):
// x[4 g + index[2 g + k]] = d * q[2 g + k] for k = 0, 1; every other x is 0.  q in [-127, 127]; index[2 g] < index[2 g
// + 1].
//   byte  0  1   2 .......... 17   18 ....... 21
//        [ d   ][ q0 ... q15     ][ index: 2 bits each, index[0] in the lowest bits of byte 18 ]
// A file in which two indices of a group are equal is read as if the first were not there.
struct BlockQ8_2of4 {
  static constexpr int kElems = 32;
  uint16_t d;
  int8_t qs[16];
  uint8_t index[4];
};
static_assert(sizeof(BlockQ8_2of4) == 22);

// At most 16 of 32 elements are kept, wherever they are: bit i % 8 of mask[i / 8] says that x[i] is, and
// x[i] = d * q[number of kept elements before i]; every other x is 0.  q in [-127, 127].
//   byte  0  1   2 .......... 17   18 ....... 21
//        [ d   ][ q0 ... q15     ][ mask            ]
// Where fewer are kept the last codes mean nothing; kept elements beyond 16 are read as 0.
struct BlockQ8_16of32 {
  static constexpr int kElems = 32;
  uint16_t d;
  int8_t qs[16];
  uint8_t mask[4];
};
static_assert(sizeof(BlockQ8_16of32) == 22);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_SPARSE_BLOCKS_H_
