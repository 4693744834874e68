// A synthetic byte-level BPE vocabulary of any size.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace updraft {

struct SynthVocabulary {
  std::vector<std::string> tokens;  // printable form: bytes mapped to characters as GPT-2 does
  std::vector<int32_t> types;       // tokenizer.ggml.token_type
  std::vector<std::string> merges;  // "left right", best first
  int32_t eos_id = 0;               // <|im_end|>
  int32_t pad_id = 0;               // <|endoftext|>
};

// 256 byte tokens, then words that merges of earlier tokens make, then three control tokens. n_vocab >=
// kMinSynthVocabulary.
inline constexpr int kMinSynthVocabulary = 300;
SynthVocabulary MakeSynthVocabulary(int n_vocab);

}  // namespace updraft
