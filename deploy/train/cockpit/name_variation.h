// Written requests said again about other names. A sheet names a few hundred people, places and titles, which a small
// model learns by heart instead of learning to copy; with the names exchanged at every draw it cannot.
#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_NAME_VARIATION_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_NAME_VARIATION_H_

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/random.h"

namespace updraft::cockpit {

// Const functions may be called by several threads.
class NameVariation {
 public:
  // Learns from `written`: which names fill which role, how they are spelt, and the words and characters that made-up
  // ones are composed of. Copies what it needs.
  explicit NameVariation(std::span<const Example> written);

  // `from` with its names (contact, place, title, artist) exchanged wherever they stand in its turns and its answer; as
  // likely for others of the same role as for made-up ones. A name that is much of the request, whose kind little
  // else tells, gets another of its role. A number that is dialled gets as many other digits. Nullopt: the last answer
  // has no name that the user said word for word (but for capitals, and spaces between digits).
  std::optional<Example> Draw(const Example& from, Random* random) const;

 private:
  enum Role { kContact, kPlace, kTitle, kArtist, kRoles };
  struct Name {
    Role role;
    std::string text;
  };
  static std::vector<Name> NamesOf(const Example& example);

  void Learn(const Example& example);
  void LearnSpelling(std::string_view word);
  std::string Another(const Name& name, size_t request_bytes, Random* random) const;
  std::string MadeUp(Role role, Random* random) const;
  std::string MadeUpWord(Random* random) const;
  std::string MadeUpInCharacters(Role role, Random* random) const;

  // Of each role, in words apart by spaces and in Chinese characters.
  std::array<std::vector<std::string>, kRoles> spaced_, unspaced_;
  std::map<std::string, std::string> following_;  // two letters ('^' before a word) -> letters met next; '$' ends it
  std::vector<std::string> words_;                // English ones that were said
  std::vector<std::string> characters_;           // Chinese ones, each once
  std::vector<std::vector<std::string>> runs_;    // what stood between two that are not Chinese characters
};

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_NAME_VARIATION_H_
