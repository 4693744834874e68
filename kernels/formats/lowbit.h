// Decoders and encoders of lowbit_blocks.h. Private to this folder; callers use codec.h.
#ifndef UPDRAFT_KERNELS_FORMATS_LOWBIT_H_
#define UPDRAFT_KERNELS_FORMATS_LOWBIT_H_

#include "kernels/formats/lowbit_blocks.h"

namespace updraft::kernels {

// x: [kElems] f32.
void DecodeBlock(const BlockIQ4_NL& block, float* x);
void DecodeBlock(const BlockIQ4_XS& block, float* x);
void DecodeBlock(const BlockMXFP4& block, float* x);
void DecodeBlock(const BlockNVFP4& block, float* x);
void DecodeBlock(const BlockQ1_0& block, float* x);
void DecodeBlock(const BlockQ2_0& block, float* x);
void DecodeBlock(const BlockTQ1_0& block, float* x);
void DecodeBlock(const BlockTQ2_0& block, float* x);
void DecodeBlock(const BlockIQ2_XXS& block, float* x);
void DecodeBlock(const BlockIQ2_XS& block, float* x);
void DecodeBlock(const BlockIQ2_S& block, float* x);
void DecodeBlock(const BlockIQ3_XXS& block, float* x);
void DecodeBlock(const BlockIQ3_S& block, float* x);
void DecodeBlock(const BlockIQ1_S& block, float* x);
void DecodeBlock(const BlockIQ1_M& block, float* x);

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
