// What one rendering may cost, and the first thing that went wrong in it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft::jinja {

inline constexpr size_t kMaxSteps = 1'000'000;       // nodes evaluated, elements and 64-byte pieces of text touched
inline constexpr size_t kMaxTextBytes = 4u << 20;    // of the output, and of any text in between
inline constexpr size_t kMaxSourceBytes = 1u << 20;  // of a template
inline constexpr int kMaxDepth = 64;                 // of blocks, brackets, macro calls and nested values, each

// Every part of an interpreter run holds one of these and stops when ok() turns false. Errors are sticky: the first
// stays.
class Budget {
 public:
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // The line of the template that is at work; errors name it.
  void set_line(int line) { line_ = line; }
  int line() const { return line_; }

  // False, with an error, when the rendering has used up its steps.
  bool Charge(size_t steps = 1) {
    if (steps <= kMaxSteps - steps_) {
      steps_ += steps;
      return ok();
    }
    steps_ = kMaxSteps;
    Fail(
        absl::StrFormat("expected at most %u steps of work, found more; the template loops too long, or the "
                        "conversation is too large",
                        kMaxSteps));
    return false;
  }
  // The same for work on text.
  bool ChargeBytes(size_t bytes) {
    if (bytes > kMaxTextBytes) {
      Fail(absl::StrFormat("expected text of at most %u bytes, found more", kMaxTextBytes));
      return false;
    }
    return Charge(1 + bytes / 64);
  }

  // `what` says what was expected and what was found.
  void Fail(std::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line_, std::string(what)));
  }
  // What the template itself says with raise_exception.
  void Raise(std::string_view message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::string(message));
  }

 private:
  size_t steps_ = 0;
  int line_ = 1;
  absl::Status status_;
};

}  // namespace updraft::jinja
