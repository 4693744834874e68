// The reference vocabularies and token ids, which lie outside the repository: their licences keep them out of it.
#ifndef UPDRAFT_TESTS_COMMON_TEXT_REFERENCE_DATA_H_
#define UPDRAFT_TESTS_COMMON_TEXT_REFERENCE_DATA_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/text/byte_bpe.h"
#include "common/text/tokenizer.h"

namespace updraft::text {

inline std::string ReferenceDir() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  return std::string(source == nullptr ? "." : source) + "/../shared/data/tokenizer_conformance";
}

// Skips the test where the data is not there.
#define UPDRAFT_NEED_REFERENCE(file)                                               \
  if (!std::filesystem::exists(ReferenceDir() + "/" + (file))) {                   \
    GTEST_SKIP() << "reference data missing: " << ReferenceDir() << "/" << (file); \
  }                                                                                \
  static_assert(true)

inline std::string ReadReference(const std::string& file) {
  std::ifstream in(ReferenceDir() + "/" + file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

struct ReferenceCase {
  std::string text;
  std::vector<int32_t> ids;
};

// llama.cpp's vocabulary tests: texts in .inp, ids in .out, one line each.
inline std::vector<ReferenceCase> ReadLlamaCppCases(const std::string& name) {
  const std::string base = "llamacpp_vocab_tests/ggml-vocab-" + name + ".gguf";
  const std::string texts = ReadReference(base + ".inp");
  std::istringstream lines(ReadReference(base + ".out"));
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  std::vector<ReferenceCase> cases;
  size_t begin = 0;
  std::string line;
  for (size_t end = texts.find(kSeparator); std::getline(lines, line); end = texts.find(kSeparator, begin)) {
    ReferenceCase& c = cases.emplace_back();
    c.text = texts.substr(begin, end == texts.npos ? end : end - begin);
    std::istringstream ids(line);
    for (int32_t id; ids >> id;) c.ids.push_back(id);
    if (end == texts.npos) break;
    begin = end + kSeparator.size();
  }
  return cases;
}

inline std::string Base64Decode(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const size_t value = kAlphabet.find(c);
    if (value == kAlphabet.npos) break;  // padding
    bits = bits << 6 | static_cast<uint32_t>(value);
    n_bits += 6;
    if (n_bits >= 8) {
      n_bits -= 8;
      bytes.push_back(static_cast<char>(bits >> n_bits & 0xFF));
    }
  }
  return bytes;
}

// A vocabulary of tiktoken, "base64 rank" per line, as converters turn it into merges: each token is made of any two
// that make it, in the order of its own rank.
inline TokenizerParts PartsOfTiktoken(const std::string& file, const std::string& pre) {
  std::istringstream lines(ReadReference(file));
  std::unordered_map<std::string, int32_t> rank;
  std::vector<std::string> tokens;
  std::string base64;
  for (int32_t r; lines >> base64 >> r;) {
    const std::string token = Base64Decode(base64);
    rank[token] = r;
    if (tokens.size() <= static_cast<size_t>(r)) tokens.resize(static_cast<size_t>(r) + 1);
    tokens[static_cast<size_t>(r)] = token;
  }
  TokenizerParts parts;
  parts.model = TokenizerModel::kByteLevelBpe;
  parts.pre = pre;
  for (const std::string& token : tokens) {
    parts.tokens.push_back(PrintableOfBytes(token));
    std::vector<std::tuple<int32_t, int32_t, size_t>> splits;
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = rank.find(token.substr(0, cut));
      const auto right = rank.find(token.substr(cut));
      if (left != rank.end() && right != rank.end()) splits.emplace_back(left->second, right->second, cut);
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [left, right, cut] : splits) {
      parts.merges.push_back(PrintableOfBytes(token.substr(0, cut)) + " " + PrintableOfBytes(token.substr(cut)));
    }
  }
  parts.types.assign(parts.tokens.size(), TokenType::kNormal);
  return parts;
}

inline int32_t AddControl(TokenizerParts* parts, const std::string& text) {
  parts->tokens.push_back(text);
  parts->types.push_back(TokenType::kControl);
  return static_cast<int32_t>(parts->tokens.size() - 1);
}

inline TokenizerParts Qwen2Parts() {
  TokenizerParts parts = PartsOfTiktoken("qwen_bpe/qwen.tiktoken", "qwen2");
  parts.pad_id = AddControl(&parts, "<|endoftext|>");
  AddControl(&parts, "<|im_start|>");
  parts.eos_id = AddControl(&parts, "<|im_end|>");
  return parts;
}

inline TokenizerParts Llama3Parts() {
  TokenizerParts parts = PartsOfTiktoken("llama3_bpe/tokenizer.model", "llama-bpe");
  parts.bos_id = AddControl(&parts, "<|begin_of_text|>");
  parts.eos_id = AddControl(&parts, "<|end_of_text|>");
  for (int i = 0; i < 4; ++i) AddControl(&parts, "<|reserved_special_token_" + std::to_string(i) + "|>");
  AddControl(&parts, "<|start_header_id|>");
  AddControl(&parts, "<|end_header_id|>");
  AddControl(&parts, "<|reserved_special_token_4|>");
  parts.eot_id = AddControl(&parts, "<|eot_id|>");
  parts.add_bos = true;
  return parts;
}

}  // namespace updraft::text

#endif  // UPDRAFT_TESTS_COMMON_TEXT_REFERENCE_DATA_H_
