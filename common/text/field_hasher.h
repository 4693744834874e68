#ifndef UPDRAFT_COMMON_TEXT_FIELD_HASHER_H_
#define UPDRAFT_COMMON_TEXT_FIELD_HASHER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace updraft::text {

// SHA-256 over a sequence of fields, each written with its length, so that no two sequences look alike.
class FieldHasher {
 public:
  FieldHasher();
  ~FieldHasher();
  FieldHasher(const FieldHasher&) = delete;
  FieldHasher& operator=(const FieldHasher&) = delete;

  void Add(std::string_view field);
  void Add(int64_t number);

  // Hexadecimal, lower case. INTERNAL when the cryptographic library refuses. Call once.
  absl::StatusOr<std::string> Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_FIELD_HASHER_H_
