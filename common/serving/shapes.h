// Shapes that answers are held to (v1::Shape, and what calls of tools look like), made ready once per shape and model:
// what many requests ask for alike, as a fleet's do, is compiled once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grammar/token_masks.h"
#include "common/sync/mutex.h"
#include "common/text/tokenizer.h"
#include "common/tools/call_format.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// What of a shape no model is needed for: one kind, not too long. InvalidArgument names the field.
absl::Status CheckShape(const v1::Shape& shape);

// Any number of threads. Keeps the shapes that were asked for last, max_shapes at most.
class Shapes {
 public:
  // ends: tokens that end an answer. n_vocab: logits of the model. calls: how it writes calls, by which control
  // tokens among others; none: it does not.
  Shapes(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<int32_t> ends, int n_vocab,
         std::optional<tools::CallFormat> calls = {}, std::vector<int32_t> call_markers = {}, size_t max_shapes = 64);

  // REQUIRES: the shape was checked. InvalidArgument says what is wrong with it and where; FailedPrecondition: the
  // vocabulary has no token that ends an answer, so that none could be held to a shape.
  absl::StatusOr<std::shared_ptr<const grammar::TokenMasks>> Of(const v1::Shape& shape) const;

  // Of an answer that may call the request's tools, or has to. REQUIRES: the request was checked and has tools;
  // `calls` was given. Errors as above; InvalidArgument names the tool.
  absl::StatusOr<std::shared_ptr<const grammar::TokenMasks>> OfCalls(const v1::GenerateRequest& request) const;

 private:
  using Masks = std::shared_ptr<const grammar::TokenMasks>;
  // What is wrong with what, as whoever asked for it knows it.
  using Make = std::function<absl::StatusOr<grammar::CompiledGrammar>()>;
  struct Entry {
    Masks masks;
    std::list<std::string>::iterator used;  // in used_
  };

  std::shared_ptr<const grammar::Vocabulary> VocabularyOf(bool of_calls) const ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Masks> FindOrMake(const std::string& key, bool of_calls, const Make& make) const
      ABSL_LOCKS_EXCLUDED(mu_);
  Masks Find(const std::string& key) const ABSL_LOCKS_EXCLUDED(mu_);
  void Keep(const std::string& key, const Masks& masks) const ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const std::vector<int32_t> ends_;
  const int n_vocab_;
  const std::optional<tools::CallFormat> calls_;
  const std::vector<int32_t> call_markers_;
  const size_t max_shapes_;
  mutable Mutex mu_;
  // Made for the first shape; with the control tokens that mark calls, for the first request that needs them.
  mutable std::shared_ptr<const grammar::Vocabulary> vocabulary_ ABSL_GUARDED_BY(mu_), with_calls_ ABSL_GUARDED_BY(mu_);
  mutable std::unordered_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);  // by the bytes of what was asked for
  mutable std::list<std::string> used_ ABSL_GUARDED_BY(mu_);                     // the last one first
};

}  // namespace updraft
