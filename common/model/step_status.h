// What became of a step on the model's Ops, as a status.
#pragma once

#include "absl/status/status.h"
#include "common/model/model.h"
#include "kernels/memory.h"

namespace updraft {

// Asked once, where a step ends or needs a number: waits for the step, takes its fault (kernels::Memory::TakeFault).
// ResourceExhausted when memory for activations could not be had: later, smaller or fewer steps may work.
// Internal when the device failed. After either, what the step wrote is in doubt: hidden states, logits, keys and
// values of its rows.
absl::Status TakeStepStatus(kernels::Memory& memory);

// The same of a step of `model`, whose weights are read in the file where it lies: Unavailable, too, from then on that
// the file is not what was loaded (Model::CheckIntact). To be asked before anything the step made leaves the
// process.
absl::Status TakeStepStatus(const Model& model);

}  // namespace updraft
