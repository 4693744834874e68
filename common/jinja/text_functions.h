// What Python's methods of str do; filters and methods share it. Sources of bytes are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/jinja/budget.h"
#include "common/jinja/sourced_text.h"

namespace updraft::jinja {

// & < > ' " as entities of HTML; markup is not touched. The result is markup.
SourcedText Escaped(const SourcedText& text);

SourcedText Upper(const SourcedText& text);
SourcedText Lower(const SourcedText& text);
SourcedText Capitalized(const SourcedText& text);  // str.capitalize
SourcedText TitleMethod(const SourcedText& text);  // str.title
SourcedText TitleFilter(const SourcedText& text);  // Jinja's filter title: words begin after white space and - ( [ { <

// chars null: white space.
SourcedText Stripped(const SourcedText& text, const std::string_view* chars, bool left, bool right);

// At most `count` replacements; negative: all. The result is no markup.
SourcedText Replaced(const SourcedText& text, const std::string& from, const SourcedText& to, int64_t count,
                     Budget& budget);

// separator null: at runs of white space. max_splits negative: no limit; from_right: of them the last.
std::vector<SourcedText> Split(const SourcedText& text, const std::string* separator, int64_t max_splits,
                               bool from_right, Budget& budget);

std::vector<SourcedText> Lines(const SourcedText& text, bool keep_ends);  // str.splitlines

SourcedText Joined(const std::vector<SourcedText>& parts, const SourcedText& separator, Budget& budget);

}  // namespace updraft::jinja
