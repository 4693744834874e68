// A model file as a tier serves it: weights, tokenizer, chat template, and what turns wire requests into prompts.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/model.h"
#include "common/serving/prompt.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "common/tools/call_format.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

class Shapes;

// Immutable after Load: any thread may make prompts.
class ServedModel {
 public:
  ~ServedModel();

  // Errors name the file and what to do. chat_template: ChatTemplate::Choose; what was chosen must work, while a file
  // whose own template is missing or broken loads, and refuses conversations. Logs when it begins and when it has
  // ended, which chat template it took and why, and trouble with options.packed_cache
  // and warnings of the tokenizer. name: what clients call the model; empty: as the file says.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& path, const LoadOptions& options,
                                                           const std::string& chat_template = "",
                                                           const std::string& name = "");

  const Model& model() const { return *model_; }
  const std::shared_ptr<const text::Tokenizer>& tokenizer() const { return tokenizer_; }
  const v1::ModelInfo& info() const { return info_; }
  const std::string& name() const { return name_; }  // what clients call it; info() has the file's

  // UNAVAILABLE, with a retry delay, once the model's file is not what was loaded: nothing more can be served
  // (Model::CheckIntact) until somebody has started the daemon again.
  absl::Status CheckIntact() const;

  const std::vector<int32_t>& stop_tokens() const { return stop_tokens_; }

  // Whether requests may carry tools, and messages calls and results of them: the chat template writes them.
  bool can_use_tools() const { return chat_template_.ok() && chat_template_->renders_tools(); }
  // How this model writes calls; none: in a way that is not known here, so that they are text like any other.
  const std::optional<tools::CallFormat>& call_format() const { return call_format_; }
  // Its name, for an answer that may call; empty: this one may not, or the form is not known.
  std::string CallFormatFor(const v1::GenerateRequest& request) const;
  // Control tokens that mark calls.
  const std::vector<int32_t>& call_markers() const { return call_markers_; }

  // What is wrong with a shape, as MakePrompt would say it; what is right is kept ready. REQUIRES: CheckShape was
  // passed.
  absl::Status CheckShapeHere(const v1::Shape& shape) const;
  // The same of what calls of the request's tools look like.
  absl::Status CheckCallsHere(const v1::GenerateRequest& request) const;

  // Renders and encodes the input of a request that passed CheckRequest. max_tokens: text that is longer for certain is
  // refused before time is spent on it (OutOfRange). InvalidArgument names the field, tools that this model cannot use
  // biases of tokens that it does not have and shapes that no answer can have among them; FailedPrecondition for token
  // ids of another vocabulary or chat template, those of biases too, and for conversations where there is no template.
  absl::StatusOr<Prompt> MakePrompt(const v1::GenerateRequest& request,
                                    size_t max_tokens = std::numeric_limits<size_t>::max()) const;

 private:
  ServedModel();
  absl::Status TakeChatTemplate(const std::string& choice);
  absl::Status TakeCalls(const v1::GenerateRequest& request, Prompt& prompt) const;
  absl::StatusOr<Prompt> FromInput(const v1::GenerateRequest& request, size_t max_tokens) const;
  absl::StatusOr<Prompt> FromConversation(const v1::GenerateRequest& request, size_t max_tokens) const;
  absl::Status CheckTools(const v1::GenerateRequest& request) const;
  absl::Status CheckBias(const v1::LogitBias& bias) const;
  absl::StatusOr<Prompt> FromText(const std::string& text, bool parse_special, size_t max_tokens) const;
  absl::StatusOr<Prompt> FromTokens(const v1::GenerateRequest& request) const;
  absl::StatusOr<Prompt> FromGiven(const v1::GivenAnswer& given, size_t max_tokens) const;
  absl::Status CheckBytes(const char* field, size_t n_bytes, size_t max_tokens) const;

  std::unique_ptr<Model> model_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  absl::StatusOr<text::ChatTemplate> chat_template_ = absl::UnknownError("");
  std::vector<int32_t> stop_tokens_;
  std::vector<std::string> chat_stops_;
  std::optional<tools::CallFormat> call_format_;
  std::vector<int32_t> call_markers_;
  std::unique_ptr<const Shapes> shapes_;
  size_t max_token_bytes_ = 1;  // of the longest token: bounds from below how many tokens a text has
  v1::ModelInfo info_;
  std::string name_;
};

}  // namespace updraft
