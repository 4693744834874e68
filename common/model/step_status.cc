#include "common/model/step_status.h"

namespace updraft {

absl::Status TakeStepStatus(kernels::Memory& memory) {
  switch (memory.TakeFault()) {
    case kernels::Fault::kNone:
      return absl::OkStatus();
    case kernels::Fault::kOutOfMemory:
      return absl::ResourceExhaustedError(
          "model: expected memory for the activations of a step, found that this process gets no more; stop other "
          "programs, raise its limit (ulimit -v, or its container's), or run fewer tokens at a time");
    case kernels::Fault::kDevice:
      return absl::InternalError("model: the device that runs it reported an error; see its log, then restart");
  }
  return absl::InternalError("model: a fault of no known kind");
}

absl::Status TakeStepStatus(const Model& model) {
  absl::Status status = TakeStepStatus(model.ops());
  return status.ok() ? model.CheckIntact() : status;
}

}  // namespace updraft
