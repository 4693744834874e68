// Reading and encoding the blocks of lowbit_blocks.h. Private to this folder; callers use codec.h.
#ifndef UPDRAFT_KERNELS_FORMATS_LOWBIT_H_
#define UPDRAFT_KERNELS_FORMATS_LOWBIT_H_

#include "kernels/formats/lowbit_blocks.h"

namespace updraft::kernels {

// The block as integers:  x[i] = scales[i / 16] * codes[i].  codes: [kElems]; scales: [kElems / 16]. Every product is
// what the format's formula gives in float, to the bit. (IQ1: an eighth of the scale times 8 * point +- 1.)
void Unpack(const BlockIQ4_NL& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ4_XS& block, int8_t* codes, float* scales);
void Unpack(const BlockMXFP4& block, int8_t* codes, float* scales);
void Unpack(const BlockNVFP4& block, int8_t* codes, float* scales);
void Unpack(const BlockQ1_0& block, int8_t* codes, float* scales);
void Unpack(const BlockQ2_0& block, int8_t* codes, float* scales);
void Unpack(const BlockTQ1_0& block, int8_t* codes, float* scales);
void Unpack(const BlockTQ2_0& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ2_XXS& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ2_XS& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ2_S& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ3_XXS& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ3_S& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ1_S& block, int8_t* codes, float* scales);
void Unpack(const BlockIQ1_M& block, int8_t* codes, float* scales);

// x: [kElems] f32, finite, magnitudes at most 2^30.
void EncodeBlock(const float* x, BlockIQ4_NL& block);
void EncodeBlock(const float* x, BlockIQ4_XS& block);
void EncodeBlock(const float* x, BlockMXFP4& block);
void EncodeBlock(const float* x, BlockQ1_0& block);
void EncodeBlock(const float* x, BlockQ2_0& block);
void EncodeBlock(const float* x, BlockTQ1_0& block);
void EncodeBlock(const float* x, BlockTQ2_0& block);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_LOWBIT_H_
