#include "kernels/cpu/kernel_table.h"

namespace updraft::kernels {

#define K(isa, family, suffix) extern const family##Kernels k##family##suffix;
#include "kernels/cpu/kernels.inc"
#undef K

namespace {

// True where a machine with `isa` runs code for `code`. The list is in order of preference, the best last.
bool Includes(Isa isa, Isa code) {
  if (code == isa || code == Isa::kPortable) return true;
  if (isa == Isa::kNeonI8mm) return Includes(Isa::kNeonDotprod, code);
  if (isa == Isa::kAvx512Bf16) return Includes(Isa::kAvx512Vbmi2, code);
  if (isa == Isa::kAvx512Vbmi2) return Includes(Isa::kAvx512Vnni, code);
  return ((isa == Isa::kAvx512Vnni || isa == Isa::kAvxVnni) && code == Isa::kAvx2) ||
         (isa == Isa::kNeonDotprod && code == Isa::kNeon);
}

void Set(KernelTable& table, const TileMatMulKernels& kernels) { table.tile_matmul = kernels; }
// Of some machines alone.
[[maybe_unused]] void Set(KernelTable& table, const KeptTileMatMulKernels& kernels) {
  table.tile_matmul.run[static_cast<int>(TileKind::k8Kept)] = kernels.run;
  table.tile_matmul.run_sparse[static_cast<int>(TileKind::k8Kept)] = kernels.run_sparse;
}
void Set(KernelTable& table, const DenseMatMulKernels& kernels) { table.dense_matmul = &kernels; }
void Set(KernelTable& table, const RowOpsKernels& kernels) { table.row_ops = &kernels; }
void Set(KernelTable& table, const LogitsKernels& kernels) { table.logits = &kernels; }
void Set(KernelTable& table, const AttentionKernels& kernels) { table.attention = &kernels; }
void Set(KernelTable& table, const ProbeKernels& kernels) { table.probe = &kernels; }

}  // namespace

KernelTable ChooseKernels(Isa isa) {
  KernelTable table;
  table.isa = isa;
#define K(code, family, suffix) \
  if (Includes(isa, Isa::code)) Set(table, k##family##suffix);
#include "kernels/cpu/kernels.inc"
#undef K
  return table;
}

}  // namespace updraft::kernels
