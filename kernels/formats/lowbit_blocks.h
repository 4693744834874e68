// Blocks whose codes are not plain numbers on a line: ternary, tables of 16 values, lattices. Everything said at the
// head of blocks.h holds here too.
#ifndef UPDRAFT_KERNELS_FORMATS_LOWBIT_BLOCKS_H_
#define UPDRAFT_KERNELS_FORMATS_LOWBIT_BLOCKS_H_

#include <cstdint>

#include "kernels/formats/float16.h"

namespace updraft::kernels {

// ---- Tables of 16 values ------------------------------------------------------------------------------------------

// The values of a 4-bit code, denser around zero, where weights are.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// x[i] = d * kIq4Values[q[i]].  Nibbles as in BlockQ4_0.
//   byte  0  1   2 .................. 17
//        [ d   ][ nibbles               ]
struct BlockIQ4_NL {
  static constexpr int kElems = 32;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

// 256 elements in 8 groups of 32 with a 6-bit scale s each:  x[32g + i] = d * (s[g] - 32) * kIq4Values[q[32g + i]].
//   byte  0  1   2  3        4 ... 7     8 ................ 135
//        [ d   ][ scales_h ][ scales_l ][ nibbles: 16 bytes per group, as in BlockQ4_0 ]
// Low 4 bits of s[g]: nibble g of scales_l; high 2 bits: bits 2g, 2g + 1 of scales_h.
struct BlockIQ4_XS {
  static constexpr int kElems = 256;
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

// Twice the values of a 4-bit float of 2 exponent bits and 1 mantissa bit (E2M1; Open Compute Project, MX formats 1.0).
inline constexpr int8_t kE2M1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// x[i] = 2^(e - 127) * E2M1(q[i]).  Nibbles as in BlockQ4_0. e = 255, which is NaN by the specification, is read as
// 2^128 is: it cannot come from an encoder.
//   byte  0    1 .................. 16
//        [ e ][ nibbles               ]
struct BlockMXFP4 {
  static constexpr int kElems = 32;
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// 64 elements in 4 groups of 16, each with a scale that is an unsigned 8-bit float of 4 exponent bits (bias 7) and 3
// mantissa bits; 0x7f, NaN, is read as 0:  x[16g + i] = UE4M3(d[g]) * E2M1(q[16g + i]).
//   byte  0 .. 3   4 ................. 35
//        [ d     ][ 8 bytes per group: low nibbles are elements 0..7, high nibbles 8..15 ]
struct BlockNVFP4 {
  static constexpr int kElems = 64;
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

// ---- One and two bits, ternary ------------------------------------------------------------------------------------

// x[i] = q[i] ? d : -d.  Bit i % 8 of byte i / 8.
//   byte  0  1   2 ................ 17
//        [ d   ][ qs                  ]
struct BlockQ1_0 {
  static constexpr int kElems = 128;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ1_0) == 18);

// x[i] = d * (q[i] - 1),  q in [0, 3].  Bits 2(i % 4), 2(i % 4) + 1 of byte i / 4.
//   byte  0  1   2 ................ 17
//        [ d   ][ qs                  ]
struct BlockQ2_0 {
  static constexpr int kElems = 64;
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ2_0) == 18);

// x[i] = d * (q[i] - 1),  q in [0, 2] (code 3 is read as 2 - it is not refused - and never written).
//   byte  0 ................. 63   64 65
//        [ qs                   ] [ d   ]
// The block is two halves of 128: bits 2k, 2k + 1 of byte 32h + i belong to element 128h + 32k + i.
struct BlockTQ2_0 {
  static constexpr int kElems = 256;
  uint8_t qs[64];
  uint16_t d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// The same numbers at 1.6875 bits: five base-3 digits t[0..4] to a byte, as the fraction  byte / 256 ~ 0.t0 t1 t2 t3 t4
// (base 3), rounded up, so that digit k is floor(3 * frac(byte * 3^k / 256)): no division to take it apart.
//   byte  0 .......... 31   32 ......... 47   48 ... 51   52 53
//        [ 5 x 32 elements ][ 5 x 16 elements ][ 4 x 4     ][ d   ]
// Digit k of byte i belongs to element 32k + i of the first run, 160 + 16k + i of the second, 240 + 4k + i of the
// third.
struct BlockTQ1_0 {
  static constexpr int kElems = 256;
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

// ---- Lattices (grids.h) -------------------------------------------------------------------------------------------
// Group g is elements 32g .. 32g + 31, octet l of it elements 32g + 8l .. 32g + 8l + 7. Signs are bits, set for minus;
// "7 signs" are completed by EvenSigns.

// x = d * (2s + 1) / 8 * grid value, s of 4 bits per group.
//   byte  0  1   2 ................................ 65
//        [ d   ][ 8 groups of 8 bytes: 4 points (8 bits); a little-endian word of 4 x 7 signs and s above them ]
struct BlockIQ2_XXS {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[64];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

// x = d * (2s + 1) / 8 * grid value, s of 4 bits per 16 elements: low nibble of scales[g] for octets 0, 1.
//   byte  0  1   2 ........................ 65   66 .... 73
//        [ d   ][ 16-bit words, one per octet: ][ scales   ]
//               [ 9 bits of point, 7 signs     ]
struct BlockIQ2_XS {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[64];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

// As BlockIQ2_XS with 10 bits of point (bits 2l, 2l + 1 of qh[g] on top of the octet's byte) and 8 signs.
//   byte  0  1   2 ......... 33   34 ....... 65   66 ... 73   74 .... 81
//        [ d   ][ points      ]  [ signs       ] [ qh      ] [ scales   ]
struct BlockIQ2_S {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

// x = d * (2s + 1) / 4 * grid value. A point is 4 elements.
//   byte  0  1   2 ........... 65   66 ................ 97
//        [ d   ][ 64 points     ]  [ words as in BlockIQ2_XXS: 4 x 7 signs, s ]
struct BlockIQ3_XXS {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[64];
  uint8_t words[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

// x = d * (2s + 1) * grid value, s of 4 bits per group: nibble g of scales. Point p of group g has its ninth bit in bit
// p of qh[g].
//   byte  0  1   2 ........... 65   66 ... 73   74 ....... 105   106 ... 109
//        [ d   ][ 64 points     ]  [ qh      ] [ signs        ] [ scales    ]
struct BlockIQ3_S {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

// What the IQ1 formats add to a whole point.
inline constexpr float kIq1Delta = 0.125f;

// x = d * (2s + 1) * (grid value +- kIq1Delta), s of 3 bits and one sign of the delta per group.
//   byte  0  1   2 ........... 33   34 ............. 49
//        [ d   ][ points, low    ] [ 16-bit words per group: 4 x 3 high bits of points, s, sign of the delta ]
struct BlockIQ1_S {
  static constexpr int kElems = 256;
  uint16_t d;
  uint8_t qs[32];
  uint8_t qh[16];
};
static_assert(sizeof(BlockIQ1_S) == 50);

// x = d * (2s + 1) * (grid value +- kIq1Delta), s of 3 bits per 16 elements and a sign of the delta per octet.
//   byte  0 ............. 31   32 .............. 47   48 ......................... 55
//        [ points, low      ] [ a nibble per octet ] [ 4 words of 16 bits: 4 x 3 bits of s; a nibble of d ]
// Nibble of an octet: 3 high bits of the point, sign of the delta. Word w holds s of groups 2w, 2w + 1 and bits 4w ..
// 4w+3 of d.
struct BlockIQ1_M {
  static constexpr int kElems = 256;
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ1_M) == 56);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_LOWBIT_BLOCKS_H_
