// The published models that the scripts of this folder bring.
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

// The one that tests/oracles/gemma.sh brings.
inline std::optional<std::string> GemmaModel() {
  const std::filesystem::path file = SourceFolder() / "build/gemma/gemma-3-270m-q4_k_m.gguf";
  if (!std::filesystem::exists(file)) return std::nullopt;
  return file.string();
}

}  // namespace updraft::testing
