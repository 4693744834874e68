// Encoders of the 256-element formats. Private to this folder; callers use codec.h.
#ifndef UPDRAFT_KERNELS_FORMATS_KQUANTS_H_
#define UPDRAFT_KERNELS_FORMATS_KQUANTS_H_

#include "kernels/formats/blocks.h"

namespace updraft::kernels {

// x: [256] f32, finite, magnitudes at most 2^30.
void EncodeBlock(const float* x, BlockQ2_K& block);
void EncodeBlock(const float* x, BlockQ3_K& block);
void EncodeBlock(const float* x, BlockQ4_K& block);
void EncodeBlock(const float* x, BlockQ5_K& block);
void EncodeBlock(const float* x, BlockQ6_K& block);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_KQUANTS_H_
