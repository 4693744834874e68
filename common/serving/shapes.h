// Shapes that answers are held to (v1::Shape), made ready once per shape and model: what many requests ask for alike,
// as a fleet's do, is compiled once.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/grammar/token_masks.h"
#include "common/sync/mutex.h"
#include "common/text/tokenizer.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// What of a shape no model is needed for: one kind, not too long. InvalidArgument names the field.
absl::Status CheckShape(const v1::Shape& shape);

// Any number of threads. Keeps the shapes that were asked for last, max_shapes at most.
class Shapes {
 public:
  // ends: tokens that end an answer. n_vocab: logits of the model.
  Shapes(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<int32_t> ends, int n_vocab,
         size_t max_shapes = 64);

  // REQUIRES: the shape was checked. InvalidArgument says what is wrong with it and where; FailedPrecondition: the
  // vocabulary has no token that ends an answer, so that none could be held to a shape.
  absl::StatusOr<std::shared_ptr<const grammar::TokenMasks>> Of(const v1::Shape& shape) const;

 private:
  using Masks = std::shared_ptr<const grammar::TokenMasks>;
  struct Entry {
    Masks masks;
    std::list<std::string>::iterator used;  // in used_
  };

  std::shared_ptr<const grammar::Vocabulary> VocabularyOf() const ABSL_LOCKS_EXCLUDED(mu_);
  Masks Find(const std::string& key) const ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<const text::Tokenizer> tokenizer_;
  const std::vector<int32_t> ends_;
  const int n_vocab_;
  const size_t max_shapes_;
  mutable Mutex mu_;
  mutable std::shared_ptr<const grammar::Vocabulary> vocabulary_ ABSL_GUARDED_BY(mu_);  // made for the first shape
  mutable std::unordered_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);         // by the shape's bytes
  mutable std::list<std::string> used_ ABSL_GUARDED_BY(mu_);                            // the last one first
};

}  // namespace updraft
