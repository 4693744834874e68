// The published model that tests/oracles/make.sh brings.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

namespace updraft::testing {

inline std::filesystem::path SourceFolder() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  return source != nullptr ? source : ".";
}

// nullopt: make.sh was not run, or could not fetch it. UPDRAFT_ORACLE_GGUF names another file.
inline std::optional<std::string> PackagedModel() {
  const std::filesystem::path folder = SourceFolder() / "build/oracles";
  if (!std::filesystem::exists(folder / "made")) return std::nullopt;
  if (const char* other = std::getenv("UPDRAFT_ORACLE_GGUF")) return other;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") return entry.path().string();
  }
  return std::nullopt;
}

}  // namespace updraft::testing
