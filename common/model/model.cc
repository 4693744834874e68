#include "common/model/model.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/file_error.h"
#include "common/model/memory_need.h"
#include "common/model/tensor_shape.h"
#include "common/model/weight_packer.h"
#include "kernels/formats/codec.h"

namespace updraft {

// Takes tensors out of the file one by one, each checked against the shape that the configuration asks for. Remembers
// the first error, so that the list of weights reads as a list; after an error what it returns is empty. Matrices are
// only noted meanwhile and packed when all is known to be right, which tells how much there is to do.
class WeightLoader {
 public:
  explicit WeightLoader(Model& model) : model_(model), file_(model.file_) {}

  absl::Status LoadAll(const LoadOptions& options);

 private:
  using Slot = std::unique_ptr<kernels::PackedMatrix> LayerWeights::*;
  using LowRankSlot = std::unique_ptr<kernels::LowRank> LayerWeights::*;

  absl::Status FindAll();
  WeightsNeed Need() const;
  void PackAll(const LoadOptions& options);
  absl::Status PackAdapter();
  absl::Status AdaptEmbedding();
  LayerWeights Layer(int i);
  void Exits();
  void Rope();
  void RefuseUnused();

  const gguf::TensorInfo* Find(const std::string& name, int64_t n_in, int64_t n_out);
  void Matrix(Slot slot, LowRankSlot low_rank, const std::string& name, int64_t n_out, int64_t n_in);
  std::vector<float> Vector(const std::string& name, int64_t n);
  kernels::Buffer Uploaded(const std::string& name, int64_t n);
  void Fail(absl::Status status) { status_.Update(std::move(status)); }

  Model& model_;
  const gguf::File& file_;
  const gguf::TensorInfo* embedding_ = nullptr;
  std::vector<MatrixToPack> matrices_;
  struct Place {
    size_t layer;
    Slot slot;  // null: the head
    LowRankSlot low_rank;
  };
  std::vector<Place> places_;  // of matrices_
  absl::flat_hash_set<std::string> used_;
  absl::Status status_;
};

const gguf::TensorInfo* WeightLoader::Find(const std::string& name, int64_t n_in, int64_t n_out) {
  if (!status_.ok()) return nullptr;
  const gguf::TensorInfo* tensor = file_.FindTensor(name);
  if (tensor == nullptr) {
    Fail(absl::InvalidArgumentError(
        absl::StrFormat("model '%s': tensor '%s': expected %s, found none; the file is incomplete or of another "
                        "architecture than the %s that it states",
                        file_.path(), name, ShapeText(n_in, n_out), ArchitectureName(model_.config_.architecture))));
    return nullptr;
  }
  if (!HasShape(*tensor, n_in, n_out)) {
    Fail(absl::InvalidArgumentError(absl::StrFormat("model '%s': tensor '%s': expected %s, found %s", file_.path(),
                                                    name, ShapeText(n_in, n_out), ShapeText(*tensor))));
    return nullptr;
  }
  used_.insert(name);
  return tensor;
}

void WeightLoader::Matrix(Slot slot, LowRankSlot low_rank, const std::string& name, int64_t n_out, int64_t n_in) {
  const gguf::TensorInfo* tensor = Find(name, n_in, n_out);
  if (tensor == nullptr) return;
  matrices_.push_back({tensor, n_out, n_in});
  places_.push_back({model_.layers_.size(), slot, low_rank});
}

std::vector<float> WeightLoader::Vector(const std::string& name, int64_t n) {
  const gguf::TensorInfo* tensor = Find(name, n, 1);
  if (tensor == nullptr) return {};
  using kernels::DType;
  if (tensor->type != DType::kF32 && tensor->type != DType::kF16 && tensor->type != DType::kBF16) {
    Fail(absl::InvalidArgumentError(absl::StrFormat("model '%s': tensor '%s': expected f32, f16 or bf16, found %s",
                                                    file_.path(), name, kernels::Info(tensor->type).name)));
    return {};
  }
  std::vector<float> values(n);
  kernels::DequantizeRow(tensor->type, tensor->data.data(), values.data(), n);
  return values;
}

// A Vector in the memory of Ops; what goes wrong there is found when all is loaded.
kernels::Buffer WeightLoader::Uploaded(const std::string& name, int64_t n) {
  const std::vector<float> values = Vector(name, n);
  if (values.empty()) return {};
  kernels::Ops& ops = *model_.ops_;
  kernels::Buffer buffer = ops.Allocate(values.size() * sizeof(float), kernels::MemoryUse::kActivations);
  ops.Upload(values.data(), buffer.bytes(), buffer.floats());
  return buffer;
}

LayerWeights WeightLoader::Layer(int i) {
  const ModelConfig& c = model_.config_;
  const std::string blk = absl::StrFormat("blk.%d.", i);
  const int64_t q_width = int64_t{c.n_head} * c.head_dim;
  const int64_t kv_width = int64_t{c.n_kv_head} * c.head_dim;

  LayerWeights w;
  w.attn_norm = Uploaded(blk + "attn_norm.weight", c.d_model);
  Matrix(&LayerWeights::wq, &LayerWeights::lq, blk + "attn_q.weight", q_width, c.d_model);
  Matrix(&LayerWeights::wk, &LayerWeights::lk, blk + "attn_k.weight", kv_width, c.d_model);
  Matrix(&LayerWeights::wv, &LayerWeights::lv, blk + "attn_v.weight", kv_width, c.d_model);
  Matrix(&LayerWeights::wo, &LayerWeights::lo, blk + "attn_output.weight", c.d_model, q_width);
  if (c.qkv_bias) {
    w.bq = Uploaded(blk + "attn_q.bias", q_width);
    w.bk = Uploaded(blk + "attn_k.bias", kv_width);
    w.bv = Uploaded(blk + "attn_v.bias", kv_width);
  }
  if (c.qk_norm) {
    w.q_norm = Uploaded(blk + "attn_q_norm.weight", c.head_dim);
    w.k_norm = Uploaded(blk + "attn_k_norm.weight", c.head_dim);
  }
  w.ffn_norm = Uploaded(blk + "ffn_norm.weight", c.d_model);
  Matrix(&LayerWeights::w_gate, &LayerWeights::l_gate, blk + "ffn_gate.weight", c.d_ff, c.d_model);
  Matrix(&LayerWeights::w_up, &LayerWeights::l_up, blk + "ffn_up.weight", c.d_ff, c.d_model);
  Matrix(&LayerWeights::w_down, &LayerWeights::l_down, blk + "ffn_down.weight", c.d_model, c.d_ff);
  return w;
}

void WeightLoader::Exits() {
  for (const int layers : model_.config_.exit_layers) {
    model_.exit_norms_.push_back(
        Uploaded(absl::StrFormat("updraft.exit.%d.norm.weight", layers), model_.config_.d_model));
  }
}

void WeightLoader::Rope() {
  const ModelConfig& c = model_.config_;
  if (file_.FindTensor("rope_freqs.weight") != nullptr) {
    model_.rope_freq_factors_ = Vector("rope_freqs.weight", c.n_rot / 2);
    for (const float factor : model_.rope_freq_factors_) {
      if (!(factor > 0.0f && std::isfinite(factor))) {
        Fail(absl::InvalidArgumentError(absl::StrFormat(
            "model '%s': tensor 'rope_freqs.weight': expected positive factors, found %g", file_.path(), factor)));
        break;
      }
    }
  }
  model_.rope_ = {.n_rot = c.n_rot,
                  .interleaved = c.rope_interleaved,
                  .freq_base = c.rope_freq_base,
                  .freq_scale = c.rope_freq_scale,
                  .freq_factors = model_.rope_freq_factors_.empty() ? nullptr : model_.rope_freq_factors_.data(),
                  .ext_factor = c.rope_ext_factor,
                  .attn_factor = c.rope_attn_factor,
                  .beta_fast = c.rope_beta_fast,
                  .beta_slow = c.rope_beta_slow,
                  .n_ctx_orig = c.rope_orig_context};
}

void WeightLoader::RefuseUnused() {
  for (const gguf::TensorInfo& tensor : file_.tensors()) {
    if (used_.contains(tensor.name) || absl::StartsWith(tensor.name, "updraft.")) continue;
    Fail(absl::UnimplementedError(absl::StrFormat(
        "model '%s': tensor '%s' has no use in a %s model that this build knows; the file's architecture "
        "has a feature that is not supported",
        file_.path(), tensor.name, ArchitectureName(model_.config_.architecture))));
    return;
  }
}

absl::Status WeightLoader::FindAll() {
  const ModelConfig& c = model_.config_;
  embedding_ = Find("token_embd.weight", c.d_model, c.n_vocab);
  model_.output_norm_ = Uploaded("output_norm.weight", c.d_model);
  Rope();
  Exits();
  for (int i = 0; i < c.n_layer && status_.ok(); ++i) model_.layers_.push_back(Layer(i));
  Matrix(nullptr, nullptr, c.tied_output ? "token_embd.weight" : "output.weight", c.n_vocab, c.d_model);
  RefuseUnused();
  return status_;
}

void WeightLoader::PackAll(const LoadOptions& options) {
  auto packed = PackMatrices(matrices_, file_, *model_.ops_, options, model_.packed_cache_);
  for (size_t i = 0; i < packed.size(); ++i) {
    const Place& at = places_[i];
    (at.slot == nullptr ? model_.output_ : model_.layers_[at.layer].*at.slot) = std::move(packed[i]);
  }
}

WeightsNeed WeightLoader::Need() const {
  WeightsNeed need;
  need.weights_bytes = need.in_place_bytes = embedding_->data.size();
  for (const MatrixToPack& m : matrices_) {
    const size_t packed = model_.ops_->PackedSize(m.tensor->type, m.n_out, m.n_in);
    // Read in place, as the embedding may be already, or laid out as measured, about as large.
    const bool again = m.tensor == embedding_;
    need.weights_bytes += packed > 0 || again ? packed : m.tensor->data.size();
    if (packed == 0 && !again) need.in_place_bytes += m.tensor->data.size();
  }
  if (model_.adapter_ != nullptr) {
    // As floats while it is packed.
    for (const gguf::TensorInfo& tensor : model_.adapter_->file().tensors())
      need.weights_bytes += 4 * tensor.elements();
  }
  for (const gguf::File::Part& part : file_.parts()) need.header_bytes += part.data_offset;
  return need;
}

absl::Status WeightLoader::PackAdapter() {
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const MatrixToPack& matrix = matrices_[i];
    const Place& at = places_[i];
    const auto pair = model_.adapter_->Pair(at.slot == nullptr ? "output.weight" : matrix.tensor->name);
    if (!pair.ok()) return pair.status();
    if (!pair->has_value()) continue;
    (at.slot == nullptr ? model_.output_low_rank_ : model_.layers_[at.layer].*at.low_rank) = model_.ops_->PackLowRank(
        matrix.tensor->type, (*pair)->rank, matrix.n_out, matrix.n_in, (*pair)->a.data(), (*pair)->b.data());
  }
  return AdaptEmbedding();
}

absl::Status WeightLoader::AdaptEmbedding() {
  auto pair = model_.adapter_->Pair("token_embd.weight");
  if (!pair.ok()) return pair.status();
  if (!pair->has_value()) return absl::OkStatus();
  EmbeddingLowRank& to = model_.embedding_low_rank_.emplace();
  to.a_floats = std::move((*pair)->a);
  to.b_floats = std::move((*pair)->b);
  const ModelConfig& c = model_.config_;
  const int64_t rank = (*pair)->rank;
  to.a = model_.ops_->Table(kernels::DType::kF32, c.n_vocab, rank, to.a_floats.data());
  to.b = model_.ops_->Pack(kernels::DType::kF32, c.d_model, rank, to.b_floats.data());
  return absl::OkStatus();
}

absl::Status WeightLoader::LoadAll(const LoadOptions& options) {
  if (absl::Status status = FindAll(); !status.ok()) return status;
  if (!options.adapter.empty()) {
    absl::StatusOr<Adapter> adapter = Adapter::Open(options.adapter, file_, model_.config_);
    if (!adapter.ok()) return adapter.status();
    model_.adapter_ = std::make_unique<Adapter>(*std::move(adapter));
    if (model_.adapter_->file().Has("updraft.exit.thresholds")) {
      absl::Status status = model_.config_.ReadExitThresholds(model_.adapter_->file());
      if (!status.ok()) return status;
    }
  }
  if (options.admit) {
    if (absl::Status status = options.admit(model_.config_, Need()); !status.ok()) return status;
  }
  model_.embedding_ =
      model_.ops_->Table(embedding_->type, model_.config_.n_vocab, model_.config_.d_model, embedding_->data.data());
  // First what may still be refused.
  if (model_.adapter_ != nullptr) {
    if (absl::Status status = PackAdapter(); !status.ok()) return status;
  }
  PackAll(options);
  return absl::OkStatus();
}

// What load() returns or throws, called on a thread that ends with it.
template <typename Load>
auto OnThreadOfItsOwn(const Load& load) {
  std::optional<decltype(load())> result;
  std::exception_ptr thrown;  // leaving a thread it would end the process
  const auto run = [&] {
    try {
      result.emplace(load());
    } catch (...) {
      thrown = std::current_exception();
    }
  };
  try {
    std::thread(run).join();
  } catch (const std::system_error&) {  // there is no thread to be had
    run();
  }
  if (thrown) std::rethrow_exception(thrown);
  return *std::move(result);
}

uint64_t WeightBytes(const gguf::File& file) {
  uint64_t bytes = 0;
  for (const gguf::TensorInfo& tensor : file.tensors()) bytes += tensor.data.size();
  return bytes;
}

absl::Status NoMemory(const std::string& path, uint64_t weight_bytes) {
  return absl::ResourceExhaustedError(absl::StrFormat(
      "model '%s': expected memory for its weights, which take %d bytes in the file and about as much again when they "
      "are packed, found that this process gets no more; stop other programs, raise its limit (ulimit -v, or its "
      "container's), or choose a smaller model",
      path, weight_bytes));
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const std::string& path, const LoadOptions& options) {
  absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  if (!file.ok()) return file.status();
  const uint64_t weight_bytes = WeightBytes(*file);
  try {
    auto ops = kernels::MakeCpuOps({.n_threads = options.n_threads, .pin_threads = options.pin_threads});
    const auto load = [&] { return FromFile(*std::move(file), std::move(ops), options); };
    // Packing confines its thread to one CPU, and what that thread starts later as well. Who loads a model, such as the
    // main thread of a daemon that starts its servers next, need not be who runs it.
    auto model = options.pin_threads ? OnThreadOfItsOwn(load) : load();
    if (!model.ok()) return AsFileError(model.status());
    return model;
  } catch (const std::bad_alloc&) {
    return NoMemory(path, weight_bytes);
  }
}

absl::StatusOr<std::unique_ptr<Model>> Model::FromFile(gguf::File file, std::unique_ptr<kernels::Ops> ops,
                                                       const LoadOptions& options) {
  absl::StatusOr<ModelConfig> config = ModelConfig::FromGguf(file);
  if (!config.ok()) return config.status();
  std::unique_ptr<Model> model(new Model(std::move(file), std::move(ops)));
  model->config_ = *std::move(config);
  if (absl::Status status = WeightLoader(*model).LoadAll(options); !status.ok()) return status;
  if (model->config_.ffn_group > 0 && !model->AdaptsFeedForward()) {
    // Layers of the first one's types: the others are few where a file mixes types at all.
    std::vector<kernels::FeedForwardWeights> alike;
    for (int i = 0; i < model->config_.n_layer; ++i) {
      const kernels::FeedForwardWeights w = model->feed_forward(i);
      if (alike.empty() || (w.up->type() == alike[0].up->type() && w.down->type() == alike[0].down->type())) {
        alike.push_back(w);
      }
    }
    model->sparsity_ = model->ops_->TuneSparsity(alike);
  }
  switch (model->ops_->TakeFault()) {
    case kernels::Fault::kNone:
      if (absl::Status status = model->CheckIntact(); !status.ok()) return status;
      return model;
    case kernels::Fault::kOutOfMemory:
      return NoMemory(model->file_.path(), WeightBytes(model->file_));
    case kernels::Fault::kDevice:
      break;
  }
  return absl::InternalError(absl::StrFormat("model '%s': the device that it was put on (%s) reported an error",
                                             model->file_.path(), model->ops_->name()));
}

kernels::FeedForwardWeights Model::feed_forward(int i) const {
  const LayerWeights& w = layers_[i];
  return {.gate = w.w_gate.get(),
          .up = w.w_up.get(),
          .down = w.w_down.get(),
          .group = config_.ffn_group,
          .threshold = config_.ffn_group > 0 ? config_.ffn_thresholds[i] : 0.0f,
          .gate_low_rank = w.l_gate.get(),
          .up_low_rank = w.l_up.get(),
          .down_low_rank = w.l_down.get()};
}

const gguf::File& Model::FileWith(std::string_view key) const {
  return adapter_ != nullptr && adapter_->file().Has(key) ? adapter_->file() : file_;
}

bool Model::AdaptsFeedForward() const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const LayerWeights& w) { return w.l_up != nullptr || w.l_down != nullptr; });
}

std::string Model::DescribeSparsity() const {
  if (config_.ffn_group == 0) return "";
  std::string text = absl::StrFormat("feed-forward groups of %d neurons;", config_.ffn_group);
  if (AdaptsFeedForward()) return text + " skipped ones are computed and masked, as an adapter works beside them";
  if (sparsity_.points.empty()) return text + " skipped ones are computed and masked, as these weights are not tiled";
  for (const auto& point : sparsity_.points) {
    absl::StrAppendFormat(&text, " %.0f %% active: %.2fx,", 100 * point.active, point.speedup);
  }
  if (sparsity_.sparse_share == 0.0f) return text + " so skipping is never used here";
  return text + absl::StrFormat(" so skipping is used up to %.0f %%", 100 * sparsity_.sparse_share);
}

std::string Model::DescribeLayouts() const {
  std::string text;
  for (const kernels::LayoutChoice& c : ops_->layout_choices()) {
    absl::StrAppendFormat(&text, "%s%s %dx%d without zeros: %.2fx for one row, %.2fx for many, %.2fx together, so %s",
                          text.empty() ? "" : "; ", kernels::Info(c.type).name, c.n_out, c.n_in, c.speedup_one,
                          c.speedup_many, c.speedup_request, c.kept ? "used" : "not used");
  }
  return text;
}

size_t Model::bytes_per_token() const {
  const auto bytes_of = [](const auto* part) { return part == nullptr ? size_t{0} : part->packed_bytes(); };
  size_t bytes = bytes_of(output_.get()) + bytes_of(output_low_rank_.get());
  for (const LayerWeights& w : layers_) {
    for (const kernels::PackedMatrix* matrix :
         {w.wq.get(), w.wk.get(), w.wv.get(), w.wo.get(), w.w_gate.get(), w.w_up.get(), w.w_down.get()}) {
      bytes += bytes_of(matrix);
    }
    for (const kernels::LowRank* low_rank :
         {w.lq.get(), w.lk.get(), w.lv.get(), w.lo.get(), w.l_gate.get(), w.l_up.get(), w.l_down.get()}) {
      bytes += bytes_of(low_rank);
    }
  }
  return bytes;
}

}  // namespace updraft
