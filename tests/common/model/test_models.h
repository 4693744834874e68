// Small models with random weights, and edited copies of them, for tests of the model, decoding and evaluation.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "common/model/model.h"
#include "deploy/synth/synth.h"
#include "kernels/formats/codec.h"

namespace updraft::testing {

// A file name of its own below the test's temporary folder, removed at the end.
class TempFile {
 public:
  TempFile() {
    static int counter = 0;
    path_ =
        ::testing::TempDir() + "updraft_model_" + std::to_string(getpid()) + "_" + std::to_string(counter++) + ".gguf";
  }
  ~TempFile() { std::remove(path_.c_str()); }
  TempFile(const TempFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline SynthShape Shape(const std::string& name) { return FindShape(name).value(); }

// The mapping outlives the name, so the file can be removed at once.
inline std::unique_ptr<Model> MakeModel(const SynthShape& shape, kernels::DType type = kernels::DType::kF32,
                                        uint64_t seed = 1, int n_threads = 1) {
  TempFile file;
  const absl::Status status = Synthesize(shape, type, file.path(), {.seed = seed, .n_threads = 1, .head_type = type});
  EXPECT_TRUE(status.ok()) << status;
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(file.path(), {.n_threads = n_threads});
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *std::move(model) : nullptr;
}

// A copy of a GGUF file with changes, for hostile input.
struct Edit {
  std::function<void(gguf::Writer&)> metadata = [](gguf::Writer&) {};  // runs after everything is copied
  std::set<std::string> drop_tensors = {};
  std::map<std::string, std::vector<int64_t>> reshape = {};  // name -> dims; data is zero
  std::map<std::string, kernels::DType> retype = {};
  std::vector<std::string> add_tensors = {};       // f32, one element
  std::optional<kernels::DType> convert_all = {};  // decodes and encodes every tensor
  // The same of matrices alone whose rows are whole blocks of the type: what such a file commonly is.
  std::optional<kernels::DType> convert_matrices = {};
};

inline absl::Status EditFile(const std::string& from, const std::string& to, const Edit& edit) {
  absl::StatusOr<gguf::File> file = gguf::File::Open(from);
  if (!file.ok()) return file.status();
  absl::StatusOr<gguf::Writer> writer = gguf::Writer::Create(to);
  if (!writer.ok()) return writer.status();
  writer->CopyMetadata(*file);
  edit.metadata(*writer);
  struct Out {
    std::string name;
    std::vector<std::byte> data;
  };
  std::vector<Out> out;
  const auto add = [&](const std::string& name, kernels::DType type, std::vector<int64_t> dims,
                       std::vector<std::byte> data) {
    int64_t rows = 1;
    for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
    data.resize(rows * kernels::RowBytes(type, dims[0]));
    writer->AddTensor(name, type, dims);
    out.push_back({name, std::move(data)});
  };
  for (const gguf::TensorInfo& tensor : file->tensors()) {
    if (edit.drop_tensors.count(tensor.name) > 0) continue;
    std::vector<int64_t> dims(tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims);
    kernels::DType type = tensor.type;
    std::vector<std::byte> data(tensor.data.begin(), tensor.data.end());
    std::optional<kernels::DType> to_type = edit.convert_all;
    if (edit.convert_matrices && dims.size() > 1 && dims[0] % kernels::Info(*edit.convert_matrices).block_elems == 0) {
      to_type = edit.convert_matrices;
    }
    if (to_type) {
      std::vector<float> values(tensor.elements());
      kernels::DequantizeRow(type, tensor.data.data(), values.data(), tensor.elements());
      type = *to_type;
      data.resize(tensor.rows() * kernels::RowBytes(type, dims[0]));
      kernels::QuantizeRow(type, values.data(), data.data(), tensor.elements());
    }
    if (edit.reshape.count(tensor.name) > 0) dims = edit.reshape.at(tensor.name);
    if (edit.retype.count(tensor.name) > 0) type = edit.retype.at(tensor.name);
    add(tensor.name, type, dims, std::move(data));
  }
  for (const std::string& name : edit.add_tensors) add(name, kernels::DType::kF32, {1}, {});
  for (const Out& tensor : out) {
    if (absl::Status status = writer->AppendTensorData(tensor.name, tensor.data); !status.ok()) return status;
  }
  return writer->Finish();
}

inline std::vector<int32_t> RandomTokens(int n, int n_vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % n_vocab);
  return tokens;
}

// Runs tokens of one sequence in passes of `chunk` rows over `ranges` of layers; returns the hidden states [n_tok,
// d_model].
inline std::vector<float> RunSequence(const Model& model, const std::vector<int32_t>& tokens, int chunk, KvPool& pool,
                                      SequenceKv& kv) {
  const int d_model = model.config().d_model;
  Scratch scratch;
  std::vector<float> hidden(tokens.size() * d_model);
  const absl::Status reserved = kv.Reserve(static_cast<int>(tokens.size()));
  EXPECT_TRUE(reserved.ok()) << reserved;
  for (size_t done = 0; done < tokens.size(); done += chunk) {
    const size_t n = std::min<size_t>(chunk, tokens.size() - done);
    std::vector<int32_t> positions(n);
    for (size_t t = 0; t < n; ++t) positions[t] = static_cast<int32_t>(done + t);
    const std::vector<const int32_t*> tables(n, kv.blocks().data());
    Forward(
        model,
        {.tokens = std::span<const int32_t>(tokens).subspan(done, n), .positions = positions, .block_tables = tables},
        {.from = 0, .to = model.config().n_layer}, std::span<float>(hidden).subspan(done * d_model, n * d_model),
        pool.store(), scratch);
  }
  return hidden;
}

inline std::vector<float> HiddenOf(const Model& model, const std::vector<int32_t>& tokens, int chunk = 1 << 20,
                                   kernels::KvType kv_type = kernels::KvType::kF16) {
  auto pool = KvPool::Create(model.config(),
                             {.n_blocks = static_cast<int>(tokens.size()) / 4 + 1, .block_tokens = 4, .type = kv_type});
  EXPECT_TRUE(pool.ok()) << pool.status();
  SequenceKv kv(pool->get());
  return RunSequence(model, tokens, chunk, **pool, kv);
}

inline std::vector<float> LogitsOf(const Model& model, const std::vector<float>& hidden, int exit = -1) {
  const int n_rows = static_cast<int>(hidden.size()) / model.config().d_model;
  std::vector<float> logits(static_cast<size_t>(n_rows) * model.config().n_vocab);
  Scratch scratch;
  ComputeLogits(model, exit, hidden, n_rows, logits);
  return logits;
}

}  // namespace updraft::testing
