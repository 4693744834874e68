// A loaded model: the mapped file, its configuration and its weights laid out for the machine.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/model/adapter.h"
#include "common/model/config.h"
#include "common/model/load_options.h"
#include "kernels/ops.h"

namespace updraft {

// In the layout and the memory of the model's Ops.
struct LayerWeights {
  kernels::Buffer attn_norm;  // [d_model] floats, as all these are
  std::unique_ptr<kernels::PackedMatrix> wq, wk, wv, wo;
  kernels::Buffer bq, bk, bv;      // [n_head * head_dim], [n_kv_head * head_dim] twice; empty: none
  kernels::Buffer q_norm, k_norm;  // [head_dim]; empty: none
  kernels::Buffer ffn_norm;        // [d_model]
  std::unique_ptr<kernels::PackedMatrix> w_gate, w_up, w_down;
  // What an adapter adds beside these matrices; null: nothing.
  std::unique_ptr<kernels::LowRank> lq, lk, lv, lo, l_gate, l_up, l_down;
};

// What an adapter adds to an embedded token: b a[token], for a [n_vocab, rank] and b [d_model, rank].
struct EmbeddingLowRank {
  std::vector<float> a_floats, b_floats;  // what the others are made of
  std::unique_ptr<kernels::PackedMatrix> a, b;
};

// Immutable after Load except for the Ops inside (its thread pool and scratch), so one thread runs a Model at a time.
// Another engine on the same file loads its own Model; the mapped pages are shared by the kernel.
class Model {
 public:
  // Maps `path`, checks every tensor's presence, shape and type against the configuration, packs the weights. Errors
  // name the tensor, and are DATA_LOSS where the file contradicts itself. A tensor that the configuration gives no use
  // for is refused too, since leaving it out would change the answers; `updraft.*` tensors of later formats are
  // ignored, as they only add to what a model can do. ResourceExhausted when memory runs out, Unavailable when the file
  // was written to meanwhile, or what options.admit says. Trouble with options.packed_cache is no error: see
  // packed_cache().
  // Errors of options.adapter are Adapter::Open's.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, const LoadOptions& options);
  // The same for an open file, on the calling thread; options.n_threads and pin_threads are what `ops` says. Throws
  // std::bad_alloc when memory for matrices runs out.
  static absl::StatusOr<std::unique_ptr<Model>> FromFile(gguf::File file, std::unique_ptr<kernels::Ops> ops,
                                                         const LoadOptions& options = {});

  const ModelConfig& config() const { return config_; }
  const gguf::File& file() const { return file_; }
  const Adapter* adapter() const { return adapter_.get(); }  // null: none
  // Where a key that an adapter may bring stands: in the adapter where it does, else in the model's file.
  const gguf::File& FileWith(std::string_view key) const;
  // Whose `updraft.confidence.*` are fitted to what this model answers: the adapter's, or without one the model's own.
  const gguf::File& confidence_file() const { return adapter_ != nullptr ? adapter_->file() : file_; }
  kernels::Ops& ops() const { return *ops_; }

  // gguf::File::CheckIntact of every file whose bytes the model reads where they lie.
  absl::Status CheckIntact() const { return file_.CheckIntact(); }

  const LayerWeights& layer(int i) const { return layers_[i]; }
  // [n_vocab, d_model], for Ops::EmbedRows.
  const kernels::PackedMatrix& embedding() const { return *embedding_; }
  const EmbeddingLowRank* embedding_low_rank() const { return embedding_low_rank_ ? &*embedding_low_rank_ : nullptr; }
  const kernels::LowRank* output_low_rank() const { return output_low_rank_.get(); }
  const kernels::Buffer& output_norm() const { return output_norm_; }
  const kernels::PackedMatrix& output() const { return *output_; }  // the head; packed from the embedding when tied
  const kernels::Buffer& exit_norm(int exit) const { return exit_norms_[exit]; }  // [d_model]
  std::span<const float> rope_freq_factors() const { return rope_freq_factors_; }
  const kernels::RopeParams& rope() const { return rope_; }
  // Of layer i, for kernels::Ops::FeedForward.
  kernels::FeedForwardWeights feed_forward(int i) const;
  // What skipping neurons gains on this machine, measured when the model was loaded; empty without
  // config().ffn_group. DescribeSparsity puts it in a line for logs.
  const kernels::SparsityTuning& sparsity() const { return sparsity_; }
  std::string DescribeSparsity() const;
  // How matrices that leave out elements were laid out and why, a line for logs; empty without such.
  std::string DescribeLayouts() const;
  // What became of LoadOptions::packed_cache. Who loads a model shows its warnings.
  const PackedCacheUse& packed_cache() const { return packed_cache_; }
  // Bytes of weights that one decoded token reads (all layers and the head) when it skips no neurons.
  size_t bytes_per_token() const;

 private:
  Model(gguf::File file, std::unique_ptr<kernels::Ops> ops) : file_(std::move(file)), ops_(std::move(ops)) {}
  friend class WeightLoader;
  bool AdaptsFeedForward() const;

  gguf::File file_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<Adapter> adapter_;
  ModelConfig config_;
  std::vector<LayerWeights> layers_;
  std::unique_ptr<kernels::PackedMatrix> embedding_;
  std::optional<EmbeddingLowRank> embedding_low_rank_;
  std::unique_ptr<kernels::LowRank> output_low_rank_;
  kernels::Buffer output_norm_;
  std::unique_ptr<kernels::PackedMatrix> output_;
  std::vector<kernels::Buffer> exit_norms_;
  std::vector<float> rope_freq_factors_;
  kernels::RopeParams rope_;
  kernels::SparsityTuning sparsity_;
  PackedCacheUse packed_cache_;
};

}  // namespace updraft
