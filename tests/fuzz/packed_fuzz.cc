// Any bytes in the place of a model's packed weights: refused with words, or the very weights of the model.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/model/model.h"
#include "common/model/packed_file.h"
#include "deploy/synth/synth.h"
#include "tests/files.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft;  // a program of its own
using updraft::testing::ReadAll;
using updraft::testing::WriteAll;

void Require(bool holds) {
  if (!holds) std::abort();
}

// A model with a packed file of its own, for as long as the program runs.
struct Place {
  Place() {
    // In memory where there is such a folder: each run writes the file to storage.
    folder = std::string(std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : P_tmpdir) + "/updraft_packed_fuzz_" +
             std::to_string(getpid());
    std::filesystem::create_directories(folder);
    model_path = folder + "/m.gguf";
    SynthShape shape;
    shape.n_layer = 1;
    shape.n_vocab = 300;
    shape.d_model = 32;
    shape.n_head = 2;
    shape.n_kv_head = 1;
    shape.d_ff = 64;
    Require(Synthesize(shape, kernels::DType::kQ8_0, model_path, {.n_threads = 1}).ok());
    const PackedCacheUse use = Load();
    // Where the best layout is the file's own there is nothing to keep.
    if (use.outcome != PackedCacheUse::Outcome::kWritten) return;
    honest = ReadAll(use.path);
    says = Says(**Model::Load(model_path, {.n_threads = 1}));
    packed_path = use.path;
  }
  // What any bit of the weights has a share in.
  static float Says(const Model& model) {
    const auto pool = KvPool::Create(model.config(), {.n_blocks = 1, .block_tokens = 8});
    Require(pool.ok());
    Generator generator(&model, pool->get(), {});
    Require(generator.Prefill(std::vector<int32_t>{1, 2, 3, 5}).ok());
    const auto next = generator.Next();
    Require(next.ok());
    return next->evidence.entropy;
  }
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  // The weights are those of the model whatever happens.
  PackedCacheUse Load() const {
    const auto model = Model::Load(model_path, {.n_threads = 1, .packed_cache = folder});
    Require(model.ok());
    Require(packed_path.empty() || Says(**model) == says);
    return (*model)->packed_cache();
  }

  std::string folder, model_path, packed_path, honest;
  float says = 0.0f;
};

Place& ThePlace() {
  static Place place;
  return place;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Place& place = ThePlace();
  if (place.packed_path.empty()) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  WriteAll(place.packed_path, bytes);
  const PackedCacheUse use = place.Load();
  // Bytes between the matrices say nothing; a change of any other is found, said and mended for the next time.
  if (use.outcome == PackedCacheUse::Outcome::kRead) {
    Require(use.warnings.empty() && bytes.size() == place.honest.size());
  } else {
    Require(bytes != place.honest && use.outcome == PackedCacheUse::Outcome::kWritten && !use.warnings.empty());
    Require(ReadAll(place.packed_path) == place.honest);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string& honest = ThePlace().honest;
  add(context, reinterpret_cast<const uint8_t*>(honest.data()), honest.size());
  const std::string head = honest.substr(0, std::min<size_t>(honest.size(), 400));
  add(context, reinterpret_cast<const uint8_t*>(head.data()), head.size());
}
