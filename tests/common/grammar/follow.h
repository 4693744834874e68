// Follows a text through a grammar, byte by byte.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "common/grammar/grammar.h"

namespace updraft::grammar::testing {

class Follower {
 public:
  explicit Follower(const absl::StatusOr<Grammar>& grammar) {
    EXPECT_TRUE(grammar.ok()) << grammar.status();
    if (!grammar.ok()) return;
    absl::StatusOr<CompiledGrammar> compiled = CompiledGrammar::Compile(*grammar);
    EXPECT_TRUE(compiled.ok()) << compiled.status();
    if (compiled.ok()) compiled_ = std::make_unique<CompiledGrammar>(*std::move(compiled));
  }

  // Whether the text is one of the grammar's.
  bool Fits(std::string_view text) const { return At(text).done; }
  // Whether it is the beginning of one.
  bool Begins(std::string_view text) const {
    const Places places = At(text);
    return places.done || !places.ways.empty();
  }
  const CompiledGrammar& compiled() const { return *compiled_; }

 private:
  Places At(std::string_view text) const {
    Places places, next;
    if (compiled_ == nullptr) return places;
    Frames frames;
    Walker walker(compiled_.get(), &frames);
    walker.Begin(compiled_->start(), Frames::kDone, places);
    for (const char c : text) {
      walker.Step(places, static_cast<uint8_t>(c), next);
      std::swap(places, next);
    }
    return places;
  }

  std::unique_ptr<CompiledGrammar> compiled_;
};

}  // namespace updraft::grammar::testing
