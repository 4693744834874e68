// A small random model under a SentencePiece vocabulary.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/text/named_templates.h"
#include "deploy/synth/synth.h"
#include "tests/common/model/test_models.h"
#include "tests/common/text/small_vocab.h"

namespace updraft::testing {

inline SynthShape RecordingShape(int n_vocab) {
  SynthShape shape;
  shape.name = "recording";
  shape.architecture = Architecture::kQwen2;
  shape.n_layer = 4;
  shape.n_vocab = n_vocab;
  shape.context_length = 512;
  shape.exit_layers = {2};
  return shape;
}

// The same weights under a vocabulary whose texts begin with a space, and a chat format without tokens of its own.
inline absl::Status MakeSentencePieceModel(const std::string& path) {
  text::TokenizerParts parts = text::SmallSentencePieceParts();
  for (int i = 0; parts.tokens.size() < 320; ++i) {
    parts.tokens.push_back(absl::StrFormat("\u2581w%d", i));
    parts.types.push_back(text::TokenType::kNormal);
    parts.scores.push_back(parts.scores.back() - 1);
  }
  TempFile byte_level;
  const absl::Status made =
      Synthesize(RecordingShape(320), kernels::DType::kF32, byte_level.path(), {.seed = 7, .n_threads = 1});
  if (!made.ok()) return made;
  const std::vector<int32_t> types = [&] {
    std::vector<int32_t> numbers;
    for (const text::TokenType type : parts.types) numbers.push_back(static_cast<int32_t>(type));
    return numbers;
  }();
  return EditFile(byte_level.path(), path, {.metadata = [&](gguf::Writer& writer) {
                    writer.SetString("tokenizer.ggml.model", "llama");
                    writer.SetStrings("tokenizer.ggml.tokens", parts.tokens);
                    writer.SetI32s("tokenizer.ggml.token_type", types);
                    writer.SetF32s("tokenizer.ggml.scores", parts.scores);
                    writer.SetU32("tokenizer.ggml.unknown_token_id", *parts.unk_id);
                    writer.SetU32("tokenizer.ggml.bos_token_id", *parts.bos_id);
                    writer.SetU32("tokenizer.ggml.eos_token_id", *parts.eos_id);
                    writer.SetU32("tokenizer.ggml.padding_token_id", *parts.eos_id);
                    writer.SetBool("tokenizer.ggml.add_bos_token", true);
                    writer.SetBool("tokenizer.ggml.add_space_prefix", true);
                    writer.SetString("tokenizer.chat_template", std::string(*text::NamedTemplate("llama2")));
                  }});
}

}  // namespace updraft::testing
