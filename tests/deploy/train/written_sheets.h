// The written requests as the tests read them: lines of JSON, text made comparable.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace updraft::written {

// The source tree, from UPDRAFT_SOURCE_DIR; the sheets in it.
std::filesystem::path SourceRoot();
std::filesystem::path SheetFolder();

// Calls `visit(line, "file:number")` for every line of every *.jsonl in `folder`.
void ForEachJsonLine(const std::filesystem::path& folder,
                     const std::function<void(const nlohmann::json&, const std::string&)>& visit);

// What the user says in a line's `messages`, in order; joined by " / ".
std::vector<std::string> UserTexts(const nlohmann::json& line);
std::string JoinedUserText(const nlohmann::json& line);

// Letters and digits of UTF-8, ASCII in lower case, apostrophes gone, everything else one space.
std::u32string Normalized(const std::string& text);
// Whether any character is Chinese.
bool IsChinese(const std::u32string& text);
// As UTF-8 (the basic plane).
std::string Plain(const std::u32string& text);

}  // namespace updraft::written
