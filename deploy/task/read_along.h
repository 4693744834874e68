// A model reads tokens that it need not have chosen, and its heads are looked at row by row (teacher forcing).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"
#include "deploy/task/answerer.h"

namespace updraft {

inline constexpr int kFinalHead = -1;

// For each row of tokens from `first` on and each head: visit(index into heads, row, logits [n_vocab] of the token
// after it). heads: exits of the model by index, ascending, and kFinalHead, which comes last; layers above the last of
// them do not run. Errors of the pool and of common/model/step_status.h.
absl::Status ReadAlong(Answerer& answerer, std::span<const int32_t> tokens, std::span<const int> heads, size_t first,
                       const std::function<void(size_t head, size_t row, std::span<const float> logits)>& visit);

}  // namespace updraft
