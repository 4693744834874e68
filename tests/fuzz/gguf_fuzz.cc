// Any bytes as a model file: refused with a status, or everything in it can be used.
#include <cstdint>
#include <string>

#include "common/gguf/reader.h"
#include "tests/common/gguf/exercise.h"
#include "tests/common/gguf/gguf_bytes.h"
#include "tests/fuzz/seeds.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static volatile uint64_t sink = 0;
  const auto file = updraft::gguf::File::Parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
  if (file.ok()) sink = sink + updraft::gguf::testing::Exercise(*file);
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  using updraft::gguf::testing::GgufBytes;
  GgufBytes vocabulary;
  vocabulary.version = 2;
  vocabulary.String("general.architecture", "llama");
  updraft::gguf::testing::ByteSink tokens;
  for (int i = 0; i < 40; ++i) tokens.String("token" + std::to_string(i));
  vocabulary.Array("tokenizer.ggml.tokens", updraft::gguf::ValueType::kString, 40, tokens.bytes());
  for (const std::string& seed : {updraft::gguf::testing::SampleFile(), vocabulary.Build(), GgufBytes().Build()}) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
