// Reading and encoding the blocks of sparse_blocks.h. Private to this folder and to the packing of weights; callers use
// codec.h.
#ifndef UPDRAFT_KERNELS_FORMATS_SPARSE_H_
#define UPDRAFT_KERNELS_FORMATS_SPARSE_H_

#include "kernels/formats/sparse_blocks.h"

namespace updraft::kernels {

// As in lowbit.h: x[i] = scales[i / 16] * codes[i].
void Unpack(const BlockQ8_2of4& block, int8_t* codes, float* scales);
void Unpack(const BlockQ8_16of32& block, int8_t* codes, float* scales);

// Keep the largest magnitudes, of equal ones the first. x: [32] f32, finite, magnitudes at most 2^30.
void EncodeBlock(const float* x, BlockQ8_2of4& block);
void EncodeBlock(const float* x, BlockQ8_16of32& block);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_SPARSE_H_
