// Every operation as plain loops in double on dequantized weights: the oracle of the tests and of `updraft evaluate
// compare`, chosen with UPDRAFT_FORCE_ISA=reference. Never optimised; it uses the threads only so that it can be waited
// for.
#ifndef UPDRAFT_KERNELS_CPU_REFERENCE_REFERENCE_OPS_H_
#define UPDRAFT_KERNELS_CPU_REFERENCE_REFERENCE_OPS_H_

#include <memory>

#include "kernels/ops.h"

namespace updraft::kernels {

std::unique_ptr<Ops> MakeReferenceOps(int n_threads, bool pin_threads);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_REFERENCE_REFERENCE_OPS_H_
