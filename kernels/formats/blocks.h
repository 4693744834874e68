// The blocks of the quantized formats, byte for byte as they lie in a GGUF file (little-endian). A row of n elements is
// n / kElems such blocks, one after the other; rows follow each other without padding. In a mapped file a block is
// aligned to 2 bytes at best (an 18-byte block has no better), so vector code uses unaligned loads.
//
// Scales `d` and minima `m` are binary16 (see float16.h). x[i] is the i-th element of a block, q[i] its code.
#ifndef UPDRAFT_KERNELS_FORMATS_BLOCKS_H_
#define UPDRAFT_KERNELS_FORMATS_BLOCKS_H_

#include <cstdint>

#include "kernels/formats/float16.h"

namespace updraft::kernels {

// x[i] = d * q[i],  q in [-128, 127] (the encoder uses [-127, 127])
//   byte  0  1   2 .................. 33
//        [ d   ][ q0  q1  q2 ... q31    ]
struct BlockQ8_0 {
  static constexpr int kElems = 32;
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// x[i] = d * (q[i] - 8),  q in [0, 15].  The two halves of the block share bytes, so that one mask and one shift give
// 16 consecutive elements each.
//   byte  0  1   2 .................. 17
//        [ d   ][ low nibble: q0..q15, high nibble: q16..q31 ]
struct BlockQ4_0 {
  static constexpr int kElems = 32;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// x[i] = d * q[i] + m,  q in [0, 15].  Nibbles as in BlockQ4_0.
//   byte  0  1   2  3   4 ............ 19
//        [ d   ][ m   ][ nibbles        ]
struct BlockQ4_1 {
  static constexpr int kElems = 32;
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// x[i] = d * (q[i] - 16),  q in [0, 31].  Bit 4 of q[i] is bit i of the 32-bit little-endian word qh.
//   byte  0  1   2 .. 5   6 .......... 21
//        [ d   ][ qh    ][ low nibbles as in BlockQ4_0 ]
struct BlockQ5_0 {
  static constexpr int kElems = 32;
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// x[i] = d * q[i] + m,  q in [0, 31].
//   byte  0  1   2  3   4 .. 7   8 ... 23
//        [ d   ][ m   ][ qh    ][ low nibbles as in BlockQ4_0 ]
struct BlockQ5_1 {
  static constexpr int kElems = 32;
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// 256 elements in 16 groups of 16; group g has a 4-bit scale and a 4-bit minimum, both multiples of one per block.
//   x[16g + i] = (d * scale[g]) * q[16g + i] - (dmin * min[g]),  q in [0, 3]
//   byte  0 ........... 15   16 ................ 79   80 81   82 83
//        [ min << 4 | scale ][ qs                  ] [ d    ][ dmin ]
// The block is two halves of 128 elements: bits 2k, 2k + 1 of byte 32h + i of qs belong to element 128h + 32k + i.
struct BlockQ2_K {
  static constexpr int kElems = 256;
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

// 256 elements in 16 groups of 16, each with a 6-bit scale.
//   x[16g + i] = d * (scale[g] - 32) * (q[16g + i] - 4),  q in [0, 7]
//   byte  0 ...... 31   32 .............. 95   96 ....... 107   108 109
//        [ hmask     ] [ qs: as in BlockQ2_K ][ scales        ][ d      ]
// Bit 2 of q[32k + i] is bit k of hmask[i]. scales: byte g of the first 8 holds the low 4 bits of scale g (low nibble)
// and of scale g + 8 (high nibble); bits 2k, 2k + 1 of byte 8 + i hold the high 2 bits of scale 4k + i.
struct BlockQ3_K {
  static constexpr int kElems = 256;
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

// 256 elements in 8 groups of 32; group g has a 6-bit scale and a 6-bit minimum, both multiples of one per block.
//   x[32g + i] = (d * scale[g]) * q[32g + i] - (dmin * min[g]),  q in [0, 15]
//   byte  0  1   2  3    4 ...... 15   16 .................. 143
//        [ d   ][ dmin ][ scales      ][ qs: 4 runs of 32 bytes ]
// scales, bits 7..0 of each byte (s = scale, m = min, [hi] = bits 5..4, [lo] = bits 3..0):
//   byte 0..3   s4..7[hi]  s0..3 (6 bits)
//   byte 4..7   m4..7[hi]  m0..3 (6 bits)
//   byte 8..11  m4..7[lo]  s4..7[lo]
// Run r of qs: low nibbles are group 2r, high nibbles group 2r + 1.
struct BlockQ4_K {
  static constexpr int kElems = 256;
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

// As BlockQ4_K with q in [0, 31]: bit 4 of q[32g + i] is bit g of qh[i].
//   byte  0  1   2  3    4 ...... 15   16 .. 47   48 .................. 175
//        [ d   ][ dmin ][ scales      ][ qh     ][ qs, as in BlockQ4_K  ]
struct BlockQ5_K {
  static constexpr int kElems = 256;
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

// 256 elements in 16 groups of 16, each with a signed 8-bit scale.
//   x[16g + i] = (d * scale[g]) * (q[16g + i] - 32),  q in [0, 63]
//   byte  0 ............... 127   128 .......... 191   192 ....... 207   208 209
//        [ ql: low 4 bits      ][ qh: high 2 bits    ][ scales 0..15   ][ d     ]
// The block is two halves of 128 elements; within half h (ql from 64h, qh from 32h), for i in [0, 32):
//   element 128h +      i:  ql[i]      low nibble,   qh[i] bits 1..0
//   element 128h + 32 + i:  ql[i + 32] low nibble,   qh[i] bits 3..2
//   element 128h + 64 + i:  ql[i]      high nibble,  qh[i] bits 5..4
//   element 128h + 96 + i:  ql[i + 32] high nibble,  qh[i] bits 7..6
struct BlockQ6_K {
  static constexpr int kElems = 256;
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

// The 6-bit scale and minimum of group g in [0, 8) of a BlockQ4_K or BlockQ5_K.
struct GroupScale {
  uint8_t scale;
  uint8_t min;
};

UPDRAFT_HD constexpr GroupScale UnpackGroupScale(const uint8_t scales[12], int g) {
  if (g < 4) return {static_cast<uint8_t>(scales[g] & 63), static_cast<uint8_t>(scales[g + 4] & 63)};
  return {static_cast<uint8_t>((scales[g + 4] & 15) | ((scales[g - 4] >> 6) << 4)),
          static_cast<uint8_t>((scales[g + 4] >> 4) | ((scales[g] >> 6) << 4))};
}

// The inverse for all 8 groups. Values are at most 63.
UPDRAFT_HD constexpr void PackGroupScales(const GroupScale groups[8], uint8_t scales[12]) {
  for (int g = 0; g < 4; ++g) {
    const GroupScale low = groups[g];
    const GroupScale high = groups[g + 4];
    scales[g] = static_cast<uint8_t>(low.scale | ((high.scale >> 4) << 6));
    scales[g + 4] = static_cast<uint8_t>(low.min | ((high.min >> 4) << 6));
    scales[g + 8] = static_cast<uint8_t>((high.scale & 15) | ((high.min & 15) << 4));
  }
}

// The scale of group g in [0, 16) of a BlockQ3_K, -32 .. 31.
UPDRAFT_HD constexpr int UnpackScale3(const uint8_t scales[12], int g) {
  const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
  return (low | (scales[8 + g % 4] >> (2 * (g / 4)) & 3) << 4) - 32;
}

// The inverse for all 16 groups.
UPDRAFT_HD constexpr void PackScales3(const int8_t groups[16], uint8_t scales[12]) {
  for (int i = 0; i < 12; ++i) scales[i] = 0;
  for (int g = 0; g < 16; ++g) {
    const int code = groups[g] + 32;
    scales[g % 8] = static_cast<uint8_t>(scales[g % 8] | (code & 15) << (g < 8 ? 0 : 4));
    scales[8 + g % 4] = static_cast<uint8_t>(scales[8 + g % 4] | (code >> 4) << (2 * (g / 4)));
  }
}

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_BLOCKS_H_
