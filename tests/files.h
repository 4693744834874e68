// Whole files of tests.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace updraft::testing {

// Empty where there is none.
inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteAll(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

}  // namespace updraft::testing
