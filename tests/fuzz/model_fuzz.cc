// Any bytes as a model file of ours: configuration, tokenizer, chat format, confidence and router are refused with
// words or can be used, and a file that loads as a model can be run.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/model/model.h"
#include "common/routing/confidence.h"
#include "common/routing/router.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "deploy/synth/synth.h"
#include "tests/files.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft;  // a program of its own
using updraft::testing::ReadAll;

void Require(bool holds) {
  if (!holds) std::abort();
}

void RequireSaid(const absl::Status& status) { Require(status.ok() || !status.message().empty()); }

void CheckText(const gguf::File& file) {
  const auto chat = text::ChatTemplate::Choose(file, "");
  RequireSaid(chat.status());
  const auto tokenizer = text::Tokenizer::FromGguf(file);
  RequireSaid(tokenizer.status());
  if (!tokenizer.ok()) return;
  const auto ids = (*tokenizer)->Encode("hello there");
  if (ids.ok()) (*tokenizer)->Decode(*ids);
  const std::vector<text::ChatMessage> messages = {{"user", "hello"}};
  if (chat.ok()) RequireSaid(chat->RenderTokens(**tokenizer, {.messages = messages}).status());
}

void CheckConfidence(const gguf::File& file) {
  const auto confidence = ConfidenceModel::FromGguf(file);
  RequireSaid(confidence.status());
  if (!confidence.ok()) return;
  for (const float value : {-1e30f, -3.0f, 0.0f, 0.5f, 1e30f}) {
    AnswerFeatures features;
    features.values.fill(value);
    const double p = confidence->Predict(features);
    Require(p >= 0.0 && p <= 1.0 && (!confidence->calibrated() || p < 1.0));
  }
  Require(confidence->threshold() >= 0.0 && confidence->threshold() <= 1.0);
}

void CheckRouter(const gguf::File& file) {
  const auto router = Router::FromGguf(file);
  RequireSaid(router.status());
  if (!router.ok() || !router->has_value()) return;
  for (const char* prompt : {"", "open the window", "\xe6\x89\x93\xe5\xbc\x80 22"}) {
    const Router::Score score = (*router)->Predict(RouterInputOf(prompt));
    Require(score.fixes >= 0.0 && score.fixes <= 1.0 && score.breaks >= 0.0 && score.breaks <= 1.0);
  }
}

// Loading maps a path; a file in memory has one.
void CheckLoad(const uint8_t* data, size_t size) {
  const int fd = memfd_create("model_fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size));
  const auto model = Model::Load("/proc/self/fd/" + std::to_string(fd), {.n_threads = 1});
  close(fd);
  RequireSaid(model.status());
  if (!model.ok() || (*model)->config().n_vocab < 2) return;
  const auto pool = KvPool::Create((*model)->config(), {.n_blocks = 2, .block_tokens = 4});
  if (!pool.ok()) return;
  Generator generator(model->get(), pool->get(), {.exit_mode = ExitMode::kLossy});
  const std::vector<int32_t> prompt = {0, 1};
  if (generator.Prefill(prompt).ok()) RequireSaid(generator.Next().status());
}

ConfidenceModel FittedConfidence() {
  std::vector<ConfidenceModel::Sample> samples(120);
  for (size_t i = 0; i < samples.size(); ++i) {
    for (size_t j = 0; j < samples[i].features.values.size(); ++j) {
      samples[i].features.values[j] = static_cast<float>((i * (j + 3)) % 17) / 17.0f;
    }
    samples[i].correct = (i * 7) % 17 > 5;
  }
  return *ConfidenceModel::Fit(samples);
}

Router SomeRouter() {
  Router::Metadata metadata;
  for (const std::string_view name : RouterInput::FactNames()) metadata.facts.emplace_back(name);
  metadata.grams = RouterInputOf("open the window").grams;
  metadata.rarity.assign(metadata.grams.size(), 1.5f);
  metadata.fixes.assign(metadata.grams.size(), 0.5f);
  metadata.breaks.assign(metadata.grams.size(), -0.5f);
  metadata.mean.assign(RouterInput::kFacts, 1.0f);
  metadata.scale.assign(RouterInput::kFacts, 2.0f);
  metadata.fact_weights.assign(2 * RouterInput::kFacts, 0.1f);
  metadata.intercepts.assign(2, -1.0f);
  return *Router::FromMetadata(std::move(metadata));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = gguf::File::Parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
  if (!file.ok()) return 0;
  CheckText(*file);
  CheckConfidence(*file);
  CheckRouter(*file);
  const auto config = ModelConfig::FromGguf(*file);
  RequireSaid(config.status());
  if (config.ok()) CheckLoad(data, size);
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string path = std::string(P_tmpdir) + "/updraft_model_fuzz_" + std::to_string(getpid()) + ".gguf";
  const auto seed = [&](const std::string& bytes) {
    add(context, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  SynthShape shape;
  shape.d_model = 32;
  shape.n_head = 2;
  shape.n_kv_head = 1;
  shape.d_ff = 64;
  shape.n_vocab = 300;
  shape.context_length = 64;
  shape.exit_layers = {1};
  for (const Architecture architecture : {Architecture::kLlama, Architecture::kQwen2}) {
    shape.architecture = architecture;
    Require(Synthesize(shape, kernels::DType::kQ4_0, path, {.n_threads = 1}).ok());
    seed(ReadAll(path));
  }
  // What says most in the fewest bytes: metadata alone.
  auto writer = gguf::Writer::Create(path);
  Require(writer.ok());
  FittedConfidence().AddTo(*writer);
  Require(writer->Finish().ok());
  seed(ReadAll(path));
  auto router = gguf::Writer::Create(path);
  Require(router.ok());
  SomeRouter().AddTo(*router);
  Require(router->Finish().ok());
  seed(ReadAll(path));
  auto config = gguf::Writer::Create(path);
  Require(config.ok());
  config->SetString("general.architecture", "llama");
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length"}) {
    config->SetU32(std::string("llama.") + key, 64);
  }
  config->SetU32("llama.attention.head_count", 4);
  config->SetF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  config->SetString("llama.rope.scaling.type", "yarn");
  config->SetF32("llama.rope.scaling.factor", 2.0f);
  config->SetU32s("updraft.exit.layers", std::vector<uint32_t>{2, 4});
  config->SetF32s("updraft.exit.thresholds", std::vector<float>{0.5f, 0.6f});
  Require(config->Finish().ok());
  seed(ReadAll(path));
  std::remove(path.c_str());
}
