// Chat templates by name, for model files that carry none: programs like any other.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace updraft::text {

// "chatml", "hermes" (the same with tools), "llama2", "llama3", "gemma", "phi3", "mistral" (the format of its third
// tokenizer), "mistral-v1", "mistral-v7", "zephyr", "vicuna", "alpaca".
const std::vector<std::string>& NamedTemplates();

// Its source; nullopt: no such name.
std::optional<std::string_view> NamedTemplate(std::string_view name);

}  // namespace updraft::text
