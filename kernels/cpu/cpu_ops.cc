#include "kernels/arch.h"
#include "kernels/cpu/reference/reference_ops.h"
#include "kernels/ops.h"
#include "kernels/thread_pool.h"

namespace updraft::kernels {

std::unique_ptr<Ops> MakeCpuOps(const CpuOptions& options) {
  return MakeReferenceOps(options.n_threads > 0 ? options.n_threads : AvailableCpus());
}

}  // namespace updraft::kernels
