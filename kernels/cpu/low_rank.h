// Low-rank additions to products (LowRank in ops.h) as the CPU operations keep and compute them: first A x, for all
// targets of a product and a few numbers per token, then B of that, beside each piece of the product while its y is
// near.
#ifndef UPDRAFT_KERNELS_CPU_LOW_RANK_H_
#define UPDRAFT_KERNELS_CPU_LOW_RANK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

// Memory for many small matrices side by side, in large pages where the system has them: read one after another, each
// in a place of its own would cost more in walks of page tables than in bytes.
class LowRankStore {
 public:
  // Aligned to a cache line, not initialised; what it lies in lives as long as the result or a copy of it.
  std::shared_ptr<uint8_t> Take(size_t bytes);

 private:
  static constexpr size_t kBlockBytes = size_t{2} << 20;
  std::shared_ptr<AlignedBuffer> block_;
  size_t used_ = 0;
};

// What CpuOps::PackLowRank makes. Beside quantized weights A is q8_0 in tiles, with rows of zeros up to a multiple of
// 16, and B as LowRankArgs wants it; beside others both are floats.
class CpuLowRank : public LowRank {
 public:
  CpuLowRank(DType beside, int64_t rank, int64_t n_out, int64_t n_in, const float* a, const float* b,
             LowRankStore& store, ThreadPool& pool);

  bool quantized() const { return bytes_ != nullptr; }
  int64_t rank_padded() const { return rank_padded_; }  // numbers of A x kept per token; the rank where not quantized
  const TileView& a_tiles() const { return a_tiles_; }
  const uint8_t* b_codes() const { return b_codes_; }
  const uint16_t* b_scales() const { return b_scales_; }
  const float* a() const { return a_.data(); }
  const float* b() const { return b_.data(); }

 private:
  static size_t BytesOf(DType beside, int64_t rank, int64_t n_out, int64_t n_in);
  void PackB(const float* b, uint8_t* codes, uint16_t* scales) const;

  int64_t rank_padded_;
  std::shared_ptr<const uint8_t> bytes_;  // of the three below
  TileView a_tiles_;
  const uint8_t* b_codes_ = nullptr;
  const uint16_t* b_scales_ = nullptr;
  AlignedVector<float> a_, b_;
};

// The additions of one product at a time. Used by one thread at a time; the pool's threads help.
class LowRankProducts {
 public:
  // Both outlive this object.
  LowRankProducts(const KernelTable& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // The forms of activations that the targets' additions read.
  static void AddForms(std::span<const MatMulTarget> targets, ActivationForms& forms);

  // A x of every target that has one. scratch: one per thread, DenseMatMulKernels::scratch_floats each.
  void Project(std::span<const MatMulTarget> targets, const Activations& x, int n_tok,
               std::span<AlignedBuffer> scratch);

  // y += B (A x) of targets[index], whose A x is there, for outputs [out_from, out_to) of tokens [tok_from, tok_to).
  // Beside quantized weights out_from is a multiple of 16, and so is out_to or it is n_out or more. scratch: as above,
  // the calling thread's.
  void Add(size_t index, const MatMulTarget& target, int64_t out_from, int64_t out_to, int tok_from, int tok_to,
           uint8_t* scratch) const;

 private:
  struct Inputs {            // of B, of one target
    AlignedVector<float> h;  // [n_tok, rank_padded]
    AlignedVector<int8_t> q;
    std::vector<LowRankInput> of_token;
  };

  void ProjectSome(const CpuLowRank& low_rank, Inputs& to, const Activations& x, int n_tok, int part, int n_parts,
                   uint8_t* scratch) const;

  const KernelTable& kernels_;
  ThreadPool& pool_;
  std::vector<Inputs> inputs_;  // by target
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_LOW_RANK_H_
