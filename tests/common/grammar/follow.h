// Follows a text through a grammar, byte by byte, and writes texts of one.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
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

// A text of the grammar that begins so, byte by byte at random; empty: it became too long.
inline std::string Written(const Follower& follower, const std::string& begin, std::mt19937& random) {
  const CompiledGrammar& compiled = follower.compiled();
  Frames frames;
  Walker walker(&compiled, &frames);
  Places places, next;
  walker.Begin(compiled.start(), Frames::kDone, places);
  std::string text = begin;
  for (const char c : begin) {
    walker.Step(places, static_cast<uint8_t>(c), next);
    std::swap(places, next);
  }
  while (text.size() < 600) {
    if (places.done && (places.ways.empty() || random() % 8 == 0)) return text;
    std::string fits;
    // Towards the end, and among what can be read.
    for (const char c : std::string(text.size() > 200 ? "\"}]>)" : "")) {
      walker.Step(places, static_cast<uint8_t>(c), next);
      if (next.done || !next.ways.empty()) fits += c;
    }
    for (int c = 32; fits.empty() && c < 127; ++c) {
      walker.Step(places, static_cast<uint8_t>(c), next);
      if (next.done || !next.ways.empty()) fits += static_cast<char>(c);
    }
    if (fits.empty()) fits = "\n";
    text += fits[random() % fits.size()];
    walker.Step(places, static_cast<uint8_t>(text.back()), next);
    std::swap(places, next);
    if (!places.done && places.ways.empty()) return "";
  }
  return "";
}

}  // namespace updraft::grammar::testing
