// A Jinja template, as chat models carry one in their files: parsed once, run for every conversation.
//
// Follows jinja2 3.1 in the environment that Hugging Face's transformers sets for chat templates (sandboxed and
// immutable, trim_blocks, lstrip_blocks, break and continue, {% generation %}, tojson without HTML escapes,
// raise_exception, strftime_now). What needs files (include, import, extends) or makes HTML (urlize, xmlattr) is not
// there.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/jinja/sourced_text.h"
#include "common/jinja/value.h"

namespace updraft::jinja {

// Immutable; any number of threads may render at once. Copies share one tree.
class Template {
 public:
  // InvalidArgument: "line N: expected ..., found ..."; also for more than 1 MiB of source.
  static absl::StatusOr<Template> Parse(std::string_view source);

  // What the template writes, given these names. Its own words have the source kTemplate, those of the values keep
  // theirs. InvalidArgument: "line N: ..." for what does not work with these values and for more than 10^6 steps, 4 MiB
  // of text or 64 levels (budget.h); the bare message for what the template refuses with raise_exception.
  absl::StatusOr<SourcedText> Render(const Dict& globals, absl::Time now) const;

 private:
  struct Tree;
  explicit Template(std::shared_ptr<const Tree> tree) : tree_(std::move(tree)) {}

  std::shared_ptr<const Tree> tree_;
};

}  // namespace updraft::jinja
