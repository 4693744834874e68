#ifndef UPDRAFT_COMMON_TEXT_PRETOKENIZE_H_
#define UPDRAFT_COMMON_TEXT_PRETOKENIZE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace updraft::text {

// How text is cut into pieces before byte-level BPE; merges never cross a piece. Each value stands for a published
// regular expression (or a sequence of them, each splitting what the one before left); pretokenize.cc has a
// hand-written scanner for each, and the tests compare it with a regular expression engine.
enum class PreTokenizer {
  kGpt2,         // GPT-2, MPT, OLMo, Phi-2
  kLlama3,       // Llama 3: contractions in any case, digits in threes
  kQwen2,        // Qwen2, Qwen2.5, Qwen3, DeepSeek-R1 distilled on Qwen: as Llama 3, digits one by one
  kTekken,       // Mistral NeMo and later: words are also cut where the case changes
  kGpt4o,        // GPT-4o family: as Tekken, with contractions and digits in threes
  kStarcoder,    // StarCoder, Refact, Command-R, SmolLM, CodeShell: digits one by one, then GPT-2
  kFalcon,       // Falcon: runs of punctuation, then GPT-2, then ASCII digits in threes
  kDeepSeekLlm,  // DeepSeek LLM
  kDeepSeekCoder,
  kDefault,  // files that name none: punctuation, GPT-2, digits, ASCII digits in threes
};

// The pre-tokenizer that a model file calls `name` (`tokenizer.ggml.pre`); nullopt for a name that is not known.
std::optional<PreTokenizer> PreTokenizerByName(std::string_view name);

// Cuts `utf8` into pieces, appended to `*pieces` as views of `utf8`. No byte is lost: the pieces, joined, are `utf8`
// for every input, and no piece is empty. Bytes that are not UTF-8 count as characters that are neither letter, number
// nor space (as U+FFFD would). Time is linear in the length. Thread-safe.
void PreTokenize(PreTokenizer kind, std::string_view utf8, std::vector<std::string_view>* pieces);

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_PRETOKENIZE_H_
