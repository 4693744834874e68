// The left side of a product in the forms that the kernels of each weight type want, written in one pass over memory: a
// row is normalized or gated, quantized and rounded while it lies in the nearest cache.
#ifndef UPDRAFT_KERNELS_CPU_ACTIVATIONS_H_
#define UPDRAFT_KERNELS_CPU_ACTIVATIONS_H_

#include <bitset>
#include <cstdint>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/formats/dtype.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

enum class ActivationForm {
  kF32,
  kBf16,    // rounded to nearest, ties to even
  kBlocks,  // quantized in spans of one block (tile_matmul.h)
  kSpans    // quantized in spans of kSpanBlocks
};
inline constexpr int kNumActivationForms = 4;
using ActivationForms = std::bitset<kNumActivationForms>;

// The form that a product with weights of this type takes.
ActivationForm FormOf(DType type);

// Rows [n_tok, n_in], and what becomes of a row before it is put into a form: nothing, the norm or the gate.
struct ActivationSource {
  const float* x = nullptr;
  const float* gain = nullptr;  // [n_in] or null: RmsNorm with this gain and eps
  float eps = 0.0f;
  const float* up = nullptr;  // [n_tok, n_in] or null: silu(x) * up
};

// Of these the forms that were asked for.
struct Activations {
  const float* f32 = nullptr;      // [n_tok, n_in]
  const uint16_t* bf16 = nullptr;  // [n_tok, n_in]
  QuantizedRows blocks;
  QuantizedRows spans;

  const QuantizedRows& Quantized(ActivationForm form) const { return form == ActivationForm::kSpans ? spans : blocks; }
};

// Used by one thread at a time; the pool's threads help.
class ActivationWriter {
 public:
  // Both outlive this object.
  ActivationWriter(const KernelTable& kernels, ThreadPool& pool);

  // Valid until the next call, as long as the source is. n_in is a multiple of 32 where kBlocks is asked for, of
  // 32 * kSpanBlocks where kSpans is.
  Activations Write(const ActivationSource& from, int n_tok, int64_t n_in, ActivationForms forms);

 private:
  struct Quantized {
    AlignedVector<int8_t> codes;
    AlignedVector<ActivationBlock> blocks;
    QuantizedRows rows;

    void Grow(int n_tok, int n_groups, int64_t n_in);
    void Put(const TileMatMulKernels& kernels, const float* row, int token, int span_blocks);
  };
  // The row as it is put into forms: in place where nothing is done to it, else at `to`.
  const float* Transform(const ActivationSource& from, int64_t token, int64_t n_in, float* to) const;

  const KernelTable& kernels_;
  ThreadPool& pool_;
  AlignedVector<float> f32_;
  AlignedVector<uint16_t> bf16_;
  Quantized blocks_, spans_;
  std::vector<AlignedVector<float>> rows_;  // one per thread: the row at hand
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_ACTIVATIONS_H_
