// Text that remembers where each byte came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"

namespace updraft::jinja {

// Who wrote a stretch of text. The template itself is 0; what it is given has numbers of the caller's choosing.
using Source = uint32_t;
inline constexpr Source kTemplate = 0;

// Bytes in runs of one source each. Whatever a template does to a string (slices, strips, replaces, joins, escapes),
// its bytes keep their sources, so that whoever reads the output still knows which words are whose.
class SourcedText {
 public:
  struct Run {
    size_t end;  // bytes [end of the run before, end)
    Source source;
  };
  using Runs = absl::InlinedVector<Run, 1>;

  SourcedText() = default;
  explicit SourcedText(std::string bytes, Source source = kTemplate) : bytes_(std::move(bytes)) {
    if (!bytes_.empty()) runs_.push_back({bytes_.size(), source});
  }

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const Runs& runs() const { return runs_; }  // ascending, none empty, neighbours differ

  // Marked safe by a template (the filters safe and escape: Markup of Python's markupsafe). What is joined to such text
  // is escaped for HTML first: no use in a chat, but that is what published templates give.
  bool is_markup() const { return is_markup_; }
  void set_markup(bool markup) { is_markup_ = markup; }

  Source SourceAt(size_t pos) const;  // pos < size()

  void Append(std::string_view bytes, Source source);
  void Append(const SourcedText& other) { AppendPart(other, 0, other.size()); }
  void AppendPart(const SourcedText& other, size_t begin, size_t end);
  SourcedText Part(size_t begin, size_t end) const;  // begin <= end <= size(); markup where this is
  void Truncate(size_t size);                        // size <= size()

 private:
  std::string bytes_;
  Runs runs_;
  bool is_markup_ = false;
};

}  // namespace updraft::jinja
