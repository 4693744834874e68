// The CPU implementation of ops.h. Callers want MakeCpuOps of ops.h; this header is for tests and benchmarks, which
// name the instruction set themselves.
#ifndef UPDRAFT_KERNELS_CPU_CPU_OPS_H_
#define UPDRAFT_KERNELS_CPU_CPU_OPS_H_

#include <memory>

#include "kernels/arch.h"
#include "kernels/ops.h"

namespace updraft::kernels {

// How types that leave out elements are laid out.
enum class LayoutRule { kMeasured, kWhole, kKept };

struct CpuOpsRules {
  LayoutRule layouts = LayoutRule::kKept;  // MakeCpuOps measures
  bool pin_threads = false;                // as in CpuOptions
};

// isa must be supported; n_threads >= 1.
std::unique_ptr<Ops> MakeCpuOpsFor(Isa isa, int n_threads, CpuOpsRules rules = {});

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_CPU_OPS_H_
