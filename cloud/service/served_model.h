// The model that a cloud service serves, with what turns wire requests into engine requests: tokenizer and chat
// template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cloud/engine/request.h"
#include "common/model/model.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct RequestLimits {
  int max_tokens_default = 256;  // answer tokens when a request does not say
  int max_sequence_tokens = 0;   // capacity of the KV pool: the default above is lowered to what fits
};

// Immutable after Load, so any thread may build requests; the model itself is run by the engine thread alone.
class ServedModel {
 public:
  // Errors name the file and what to do. A file whose chat template is missing or unknown loads, and refuses
  // conversations.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& path, int n_threads);

  const Model& model() const { return *model_; }
  const v1::ModelInfo& info() const { return info_; }

  // Checks every field and converts. INVALID_ARGUMENT names the field, FAILED_PRECONDITION is for token ids of another
  // vocabulary. The deadline is the caller's to set; ids in the vocabulary and room in the pool are the engine's to
  // check.
  absl::StatusOr<engine::Request> BuildRequest(const v1::GenerateRequest& request, const RequestLimits& limits) const;

 private:
  ServedModel() = default;
  absl::Status BuildPrompt(const v1::GenerateRequest& request, engine::Request& built, bool& at_text_start) const;
  absl::Status CheckBytes(const char* field, size_t n_bytes) const;

  std::unique_ptr<Model> model_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  absl::StatusOr<text::ChatTemplate> chat_template_ = absl::UnknownError("");
  std::vector<int32_t> stop_tokens_;
  size_t max_token_bytes_ = 1;  // of the longest token: bounds from below how many tokens a text has
  v1::ModelInfo info_;
};

}  // namespace updraft
