// Any bytes as an adapter beside a small model: refused with words, or applied and run.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/model/adapter.h"
#include "common/model/model.h"
#include "deploy/synth/adapter.h"
#include "deploy/synth/synth.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft;  // a program of its own

void Require(bool holds) {
  if (!holds) std::abort();
}

std::string TempName(const std::string& what) {
  return std::string(P_tmpdir) + "/updraft_adapter_fuzz_" + std::to_string(getpid()) + "_" + what + ".gguf";
}

SynthShape BaseShape() {
  SynthShape shape;
  shape.d_model = 32;
  shape.n_head = 2;
  shape.n_kv_head = 1;
  shape.d_ff = 64;
  shape.n_vocab = 300;
  shape.context_length = 64;
  shape.exit_layers = {1};
  return shape;
}

// The base, made once and kept as a file without a name.
const std::string& BasePath() {
  static const std::string* const path = [] {
    const std::string name = TempName("base");
    Require(Synthesize(BaseShape(), kernels::DType::kQ4_0, name, {.n_threads = 1}).ok());
    const std::string bytes = [&] {
      std::ifstream in(name, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(in), {});
    }();
    std::remove(name.c_str());
    const int fd = memfd_create("adapter_fuzz_base", MFD_CLOEXEC);
    Require(fd >= 0 && write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    return new std::string("/proc/self/fd/" + std::to_string(fd));
  }();
  return *path;
}

void Run(const uint8_t* data, size_t size) {
  const int fd = memfd_create("adapter_fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && write(fd, data, size) == static_cast<ssize_t>(size));
  const auto model = Model::Load(BasePath(), {.n_threads = 1, .adapter = "/proc/self/fd/" + std::to_string(fd)});
  close(fd);
  Require(model.ok() || !model.status().message().empty());
  if (!model.ok()) return;
  const auto pool = KvPool::Create((*model)->config(), {.n_blocks = 2, .block_tokens = 4});
  Require(pool.ok());
  Generator generator(model->get(), pool->get(), {.exit_mode = ExitMode::kLossy});
  const std::vector<int32_t> prompt = {0, 1};
  if (generator.Prefill(prompt).ok()) {
    const auto next = generator.Next();
    Require(next.ok() || !next.status().message().empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const gguf::File* const base = new gguf::File(gguf::File::Open(BasePath()).value());
  static const ModelConfig* const config = new ModelConfig(ModelConfig::FromGguf(*base).value());
  auto file = gguf::File::Parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
  if (!file.ok()) return 0;
  const auto adapter = Adapter::FromFile(*std::move(file), *base, *config);
  Require(adapter.ok() || !adapter.status().message().empty());
  if (!adapter.ok()) return 0;
  Require(!adapter->Describe().empty());
  Run(data, size);
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string path = TempName("seed");
  const auto seed = [&] {
    std::ifstream in(path, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    add(context, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  for (const kernels::DType type : {kernels::DType::kF32, kernels::DType::kF16}) {
    Require(SynthesizeAdapter(BasePath(), path, {.rank = 2, .type = type, .embedding = true, .output = true}).ok());
    seed();
  }
  // The least that is one.
  auto writer = gguf::Writer::Create(path);
  Require(writer.ok());
  writer->SetString("general.type", "adapter");
  writer->SetString("general.architecture", "llama");
  writer->SetString("adapter.type", "lora");
  writer->SetF32("adapter.lora.alpha", 2.0f);
  writer->SetString("updraft.adapter.base_sha256", "");
  writer->SetF32s("updraft.exit.thresholds", std::vector<float>{0.5f});
  const std::vector<float> a(32, 0.5f), b(32, 0.25f);
  writer->AddTensor("blk.0.attn_q.weight.lora_a", kernels::DType::kF32, {32, 1});
  writer->AddTensor("blk.0.attn_q.weight.lora_b", kernels::DType::kF32, {1, 32});
  Require(writer->AppendTensorData("blk.0.attn_q.weight.lora_a", std::as_bytes(std::span(a))).ok());
  Require(writer->AppendTensorData("blk.0.attn_q.weight.lora_b", std::as_bytes(std::span(b))).ok());
  Require(writer->Finish().ok());
  seed();
  std::remove(path.c_str());
}
