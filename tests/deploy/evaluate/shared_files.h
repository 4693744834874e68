// Real models and texts beside the repository: too large or not ours to be part of it, so tests that read them skip
// where they are absent.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace updraft::testing {

inline std::string SourceDir() {
  const char* dir = std::getenv("UPDRAFT_SOURCE_DIR");
  return dir == nullptr ? "." : dir;
}

// "models/stories260K-F16.gguf" -> its path.
inline std::string SharedFile(const std::string& name) { return SourceDir() + "/../shared/" + name; }

}  // namespace updraft::testing

#define UPDRAFT_SKIP_WITHOUT(path)                                       \
  if (!std::filesystem::exists(path)) {                                  \
    GTEST_SKIP() << "not tested: " << path << " is not on this machine"; \
  }
