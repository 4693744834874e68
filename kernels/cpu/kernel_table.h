// The kernels that one CPU implementation of ops.h uses, chosen once from kernels.inc.
#ifndef UPDRAFT_KERNELS_CPU_KERNEL_TABLE_H_
#define UPDRAFT_KERNELS_CPU_KERNEL_TABLE_H_

#include "kernels/arch.h"
#include "kernels/cpu/attention/attention.h"
#include "kernels/cpu/dense_matmul/dense_matmul.h"
#include "kernels/cpu/logits/logits.h"
#include "kernels/cpu/probe/probe.h"
#include "kernels/cpu/row_ops/row_ops.h"
#include "kernels/cpu/tile_matmul/tile_matmul.h"

namespace updraft::kernels {

struct KernelTable {
  Isa isa = Isa::kPortable;
  TileMatMulKernels tile_matmul;
  const DenseMatMulKernels* dense_matmul = nullptr;
  const RowOpsKernels* row_ops = nullptr;
  const LogitsKernels* logits = nullptr;
  const AttentionKernels* attention = nullptr;
  const ProbeKernels* probe = nullptr;
};

// For each family the kernels written for `isa`, else those of the best instruction set that every `isa` machine also
// has. isa is supported and not kReference.
KernelTable ChooseKernels(Isa isa);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_KERNEL_TABLE_H_
