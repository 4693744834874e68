#include "kernels/cpu/activations.h"

#include "kernels/cpu/work_split.h"

namespace updraft::kernels {
namespace {

bool Has(ActivationForms forms, ActivationForm form) { return forms[static_cast<size_t>(form)]; }

template <typename T>
T* GrowTo(AlignedVector<T>& buffer, int64_t n) {
  if (buffer.size() < static_cast<size_t>(n)) buffer.resize(n);
  return buffer.data();
}

}  // namespace

ActivationForm FormOf(DType type) {
  if (type == DType::kBF16) return ActivationForm::kBf16;
  if (!IsTiled(type)) return ActivationForm::kF32;
  return TileFormatOf(TileKindOf(type)).span_blocks() > 1 ? ActivationForm::kSpans : ActivationForm::kBlocks;
}

ActivationWriter::ActivationWriter(const KernelTable& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), rows_(pool.n_threads()) {}

void ActivationWriter::Quantized::Grow(int n_tok, int n_groups, int64_t n_in) {
  GrowTo(codes, n_tok * n_in);
  GrowTo(blocks, n_tok * (n_in / kTileBlock));
  rows = {codes.data(), blocks.data(), n_tok, n_groups, n_in};
}

void ActivationWriter::Quantized::Put(const TileMatMulKernels& kernels, const float* row, int token, int span_blocks) {
  const TokenGroup group = GroupWith(rows.n_tok, rows.n_groups, token);
  kernels.quantize(row, rows.n_in, span_blocks, token - group.from, group.size, codes.data() + group.from * rows.n_in,
                   blocks.data() + group.from * (rows.n_in / kTileBlock));
}

const float* ActivationWriter::Transform(const ActivationSource& from, int64_t token, int64_t n_in, float* to) const {
  const float* x = from.x + token * n_in;
  if (from.gain != nullptr) {
    kernels_.row_ops->rms_norm(x, from.gain, static_cast<int>(n_in), from.eps, to);
  } else if (from.up != nullptr) {
    kernels_.row_ops->swiglu(x, from.up + token * n_in, n_in, to);
  } else {
    return x;
  }
  return to;
}

Activations ActivationWriter::Write(const ActivationSource& from, int n_tok, int64_t n_in, ActivationForms forms) {
  const bool transforms = from.gain != nullptr || from.up != nullptr;
  const bool as_blocks = Has(forms, ActivationForm::kBlocks);
  const bool as_spans = Has(forms, ActivationForm::kSpans);
  const int n_groups = kernels_.tile_matmul.NumGroups(n_tok);
  if (as_blocks) blocks_.Grow(n_tok, n_groups, n_in);
  if (as_spans) spans_.Grow(n_tok, n_groups, n_in);
  uint16_t* const bf16 = Has(forms, ActivationForm::kBf16) ? GrowTo(bf16_, n_tok * n_in) : nullptr;
  float* const f32 = Has(forms, ActivationForm::kF32) && transforms ? GrowTo(f32_, n_tok * n_in) : nullptr;
  if (transforms && f32 == nullptr) {
    for (AlignedVector<float>& row : rows_) GrowTo(row, n_in);
  }
  if (transforms || as_blocks || as_spans || bf16 != nullptr) {
    ForRows(pool_, n_tok, n_in, [&](int token, int thread) {
      const float* row = Transform(from, token, n_in, f32 == nullptr ? rows_[thread].data() : f32 + token * n_in);
      if (bf16 != nullptr) kernels_.row_ops->to_bf16(row, n_in, bf16 + token * n_in);
      if (as_blocks) blocks_.Put(kernels_.tile_matmul, row, token, 1);
      if (as_spans) spans_.Put(kernels_.tile_matmul, row, token, kSpanBlocks);
    });
  }
  return {.f32 = transforms ? f32 : from.x, .bf16 = bf16, .blocks = blocks_.rows, .spans = spans_.rows};
}

}  // namespace updraft::kernels
