// Portable encoders and decoders of every weight format: the reference that vector kernels are tested against, and the
// encoder that the quantizer uses.
//
// Decoding is exact arithmetic on the formulas of blocks.h in float, in the order written there, without fused
// multiply-add: the same bits on every machine, and those of ggml's reference decoder.
//
// Encoding of q8_0, q4_0, q4_1, q5_0, q5_1, mxfp4 and the ternary formats gives the same bytes as ggml's reference
// encoder wherever that one is defined. The K formats and iq4 leave the choice of scales open; ours minimises the
// squared error (see kquants.cc). The lattice formats and nvfp4 are read, not written (CanQuantize).
//
// Encoding never fails and has no undefined results: into a quantized format NaN is read as 0, infinities and values
// beyond the format are clamped, so that what is decoded again is always finite. f16 and bf16 convert as float16.h
// says, and so keep NaN and infinity.
//
// All functions are pure and may be called from any number of threads. `src` and `dst` do not overlap. Neither needs an
// alignment beyond its element's (float: 4 bytes; coded rows: none).
#ifndef UPDRAFT_KERNELS_FORMATS_CODEC_H_
#define UPDRAFT_KERNELS_FORMATS_CODEC_H_

#include <cstdint>

#include "kernels/formats/dtype.h"

namespace updraft::kernels {

// src: RowBytes(type, n) bytes. dst: [n] f32. n is a multiple of Info(type).block_elems.
void DequantizeRow(DType type, const void* src, float* dst, int64_t n);

// Whether the format is integers times a scale, with nothing added: x[i] = scales[i / 16] * codes[i].
bool CanUnpack(DType type);

// src: RowBytes(type, n) bytes. codes: [n]; scales: [n / 16]. The products are DequantizeRow's, to the bit.
void UnpackRow(DType type, const void* src, int8_t* codes, float* scales, int64_t n);

// Whether QuantizeRow has an encoder for it.
bool CanQuantize(DType type);

// src: [n] f32. dst: RowBytes(type, n) bytes. n is a multiple of Info(type).block_elems; CanQuantize(type).
void QuantizeRow(DType type, const float* src, void* dst, int64_t n);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_CODEC_H_
