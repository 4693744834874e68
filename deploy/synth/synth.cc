#include "deploy/synth/synth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numbers>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/gguf/writer.h"
#include "deploy/synth/random.h"
#include "deploy/synth/vocabulary.h"
#include "kernels/formats/codec.h"
#include "kernels/ops.h"

namespace updraft {
namespace {

using kernels::DType;

struct Tensor {
  std::string name;
  DType type;
  int64_t n_in;
  int64_t n_out;  // 1: a vector
  float mean;
  float deviation;
  int group = 0;  // > 0: so many consecutive rows share a direction (a sparse gate)
};

// Of the length of a sparse gate's rows beside those of other matrices: the first row of a group has kMostGate, the
// others less.
constexpr float kMostGate = 4.0f;
constexpr float kLeastGate = 2.0f;

// The magnitude of silu(gate) that a share `active` of the groups reaches when inputs have unit RMS. The input's
// product with a group's direction is then standard normal and the largest gate of the group kMostGate times that;
// where it is negative no |silu| passes 0.28, which shares up to 0.4 lie above.
float SparseThreshold(double active) {
  double low = 0.0, high = 10.0;  // of the product; bisection of P(product > z) = active
  for (int i = 0; i < 60; ++i) {
    const double z = 0.5 * (low + high);
    (0.5 * std::erfc(z / std::numbers::sqrt2) > active ? low : high) = z;
  }
  const double gate = kMostGate * low;
  return static_cast<float>(gate / (1.0 + std::exp(-gate)));
}

bool FewerBitsThanQ6K(DType type) { return kernels::BitsPerElement(type) < kernels::BitsPerElement(DType::kQ6_K); }

// `type`, or the nearest with blocks that divide the row.
DType Fitting(DType type, int64_t n_in) {
  while (n_in % kernels::Info(type).block_elems != 0) {
    switch (type) {
      case DType::kQ2_K:
      case DType::kQ3_K:
      case DType::kIQ4_XS:
        type = DType::kIQ4_NL;
        break;
      case DType::kTQ1_0:
      case DType::kTQ2_0:
        type = DType::kQ4_0;
        break;
      case DType::kQ4_K:
        type = DType::kQ5_0;
        break;
      case DType::kQ5_K:
        type = DType::kQ5_1;
        break;
      case DType::kQ6_K:
        type = DType::kQ8_0;
        break;
      default:
        type = DType::kF16;
    }
  }
  return type;
}

class Plan {
 public:
  Plan(const SynthShape& shape, DType type, const SynthOptions& options)
      : shape_(shape), type_(type), options_(options) {
    const DType head = options.head_type.value_or(FewerBitsThanQ6K(type) ? DType::kQ6_K : type);
    Matrix("token_embd.weight", shape.tied_output ? head : type, shape.d_model, shape.n_vocab);
    if (shape.rope_freqs) tensors_.push_back({"rope_freqs.weight", DType::kF32, shape.head_dim / 2, 1, 4.0f, 0.5f});
    for (int i = 0; i < shape.n_layer; ++i) Layer(i);
    Vector("output_norm.weight", shape.d_model, 1.0f);
    if (!shape.tied_output) Matrix("output.weight", head, shape.d_model, shape.n_vocab);
    for (const int layers : shape.exit_layers) {
      Vector(absl::StrFormat("updraft.exit.%d.norm.weight", layers), shape.d_model, 1.0f);
    }
  }

  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  void Matrix(const std::string& name, DType type, int64_t n_in, int64_t n_out) {
    tensors_.push_back({name, Fitting(type, n_in), n_in, n_out, 0.0f, 1.0f / std::sqrt(static_cast<float>(n_in))});
  }
  void Vector(const std::string& name, int64_t n, float mean) {
    tensors_.push_back({name, DType::kF32, n, 1, mean, 0.1f});
  }

  void Layer(int i) {
    const int64_t q_width = int64_t{shape_.n_head} * shape_.head_dim;
    const int64_t kv_width = int64_t{shape_.n_kv_head} * shape_.head_dim;
    const std::string blk = absl::StrCat("blk.", i, ".");
    const DType more = options_.mixed && i % 2 == 0 && FewerBitsThanQ6K(type_) ? DType::kQ6_K : type_;
    Vector(blk + "attn_norm.weight", shape_.d_model, 1.0f);
    Matrix(blk + "attn_q.weight", type_, shape_.d_model, q_width);
    Matrix(blk + "attn_k.weight", type_, shape_.d_model, kv_width);
    Matrix(blk + "attn_v.weight", more, shape_.d_model, kv_width);
    Matrix(blk + "attn_output.weight", type_, q_width, shape_.d_model);
    if (shape_.architecture == Architecture::kQwen2) {
      Vector(blk + "attn_q.bias", q_width, 0.0f);
      Vector(blk + "attn_k.bias", kv_width, 0.0f);
      Vector(blk + "attn_v.bias", kv_width, 0.0f);
    }
    if (shape_.architecture == Architecture::kQwen3) {
      Vector(blk + "attn_q_norm.weight", shape_.head_dim, 1.0f);
      Vector(blk + "attn_k_norm.weight", shape_.head_dim, 1.0f);
    }
    Vector(blk + "ffn_norm.weight", shape_.d_model, 1.0f);
    const DType ffn = options_.ffn_type.value_or(type_);
    Matrix(blk + "ffn_gate.weight", options_.gate_type.value_or(ffn), shape_.d_model, shape_.d_ff);
    if (shape_.ffn_active > 0) tensors_.back().group = shape_.ffn_group;
    Matrix(blk + "ffn_up.weight", ffn, shape_.d_model, shape_.d_ff);
    Matrix(blk + "ffn_down.weight", options_.ffn_type.value_or(more), shape_.d_ff, shape_.d_model);
  }

  const SynthShape& shape_;
  const DType type_;
  const SynthOptions& options_;
  std::vector<Tensor> tensors_;
};

void WriteMetadata(const SynthShape& shape, gguf::Writer& writer) {
  const std::string arch = ArchitectureName(shape.architecture);
  writer.SetString("general.architecture", arch);
  writer.SetString("general.name", absl::StrCat("synthetic ", shape.name));
  writer.SetString("general.description", "Random weights of a real shape, for measuring speed");
  writer.SetU32(arch + ".block_count", shape.n_layer);
  writer.SetU32(arch + ".context_length", shape.context_length);
  writer.SetU32(arch + ".embedding_length", shape.d_model);
  writer.SetU32(arch + ".feed_forward_length", shape.d_ff);
  writer.SetU32(arch + ".attention.head_count", shape.n_head);
  writer.SetU32(arch + ".attention.head_count_kv", shape.n_kv_head);
  writer.SetU32(arch + ".attention.key_length", shape.head_dim);
  writer.SetU32(arch + ".attention.value_length", shape.head_dim);
  writer.SetF32(arch + ".attention.layer_norm_rms_epsilon", shape.rms_eps);
  writer.SetU32(arch + ".rope.dimension_count", shape.head_dim);
  writer.SetF32(arch + ".rope.freq_base", shape.rope_freq_base);
  writer.SetU32(arch + ".vocab_size", shape.n_vocab);
  if (shape.sliding_window > 0) writer.SetU32(arch + ".attention.sliding_window", shape.sliding_window);
  if (!shape.rope_scaling.empty()) {
    writer.SetString(arch + ".rope.scaling.type", shape.rope_scaling);
    writer.SetF32(arch + ".rope.scaling.factor", shape.rope_scaling_factor);
    writer.SetU32(arch + ".rope.scaling.original_context_length",
                  static_cast<uint32_t>(shape.context_length / shape.rope_scaling_factor));
  }
  if (!shape.exit_layers.empty()) {
    const std::vector<uint32_t> layers(shape.exit_layers.begin(), shape.exit_layers.end());
    writer.SetU32s("updraft.exit.layers", layers);
    writer.SetF32s("updraft.exit.thresholds", std::vector<float>(layers.size(), 0.5f));
  }
  if (shape.ffn_active > 0) {
    writer.SetU32("updraft.ffn_sparsity.group", shape.ffn_group);
    writer.SetF32s("updraft.ffn_sparsity.thresholds",
                   std::vector<float>(shape.n_layer, SparseThreshold(shape.ffn_active)));
  }

  const SynthVocabulary vocabulary = MakeSynthVocabulary(shape.n_vocab);
  writer.SetString("tokenizer.ggml.model", "gpt2");
  writer.SetString("tokenizer.ggml.pre", "gpt-2");
  writer.SetStrings("tokenizer.ggml.tokens", vocabulary.tokens);
  writer.SetI32s("tokenizer.ggml.token_type", vocabulary.types);
  writer.SetStrings("tokenizer.ggml.merges", vocabulary.merges);
  writer.SetU32("tokenizer.ggml.eos_token_id", vocabulary.eos_id);
  writer.SetU32("tokenizer.ggml.padding_token_id", vocabulary.pad_id);
  writer.SetBool("tokenizer.ggml.add_bos_token", false);
  writer.SetString("tokenizer.chat_template",
                   "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
                   "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
                   "{% endif %}");
}

// Encodes n random elements (whole blocks).
void FillFresh(const Tensor& tensor, uint64_t seed, int64_t n, std::byte* out) {
  Random random(seed);
  std::vector<float> values(n);
  for (float& x : values) x = tensor.mean + tensor.deviation * random.Normal();
  kernels::QuantizeRow(tensor.type, values.data(), out, n);
}

// Drawing and encoding normals one by one would take minutes for a billion weights. Large tensors are made of pieces
// picked at random from a pool encoded once; to a kernel they look the same.
constexpr int64_t kMaxPiece = 256;  // elements of a piece, a multiple of every block
constexpr int64_t kPoolPieces = 1024;
constexpr int64_t kFreshElements = 1 << 20;  // tensors up to this size are drawn element by element

// Fills chunks of a tensor with all threads and appends them to the file.
class Filler {
 public:
  Filler(gguf::Writer& writer, const SynthOptions& options)
      : writer_(writer),
        seed_(options.seed),
        n_threads_(options.n_threads > 0 ? options.n_threads : std::max(1u, std::thread::hardware_concurrency())) {}

  absl::Status Write(const Tensor& tensor, uint64_t index) {
    const uint64_t seed = Random(seed_ * 0x10001 + index).Next();
    const int64_t n = tensor.n_in * tensor.n_out;
    if (tensor.group > 0) return WriteSparseGate(tensor, seed);
    if (n <= kFreshElements) return WriteFresh(tensor, seed);
    const int64_t piece = std::gcd(tensor.n_in, kMaxPiece);  // whole blocks, since rows are
    const size_t piece_bytes = kernels::RowBytes(tensor.type, piece);
    std::vector<std::byte> pool(kPoolPieces * piece_bytes);
    FillFresh(tensor, seed, kPoolPieces * piece, pool.data());
    constexpr int64_t kChunkPieces = 1 << 16;
    for (int64_t done = 0, pieces = n / piece; done < pieces;) {
      const int64_t now = std::min(kChunkPieces, pieces - done);
      buffer_.resize(now * piece_bytes);
      // Each run of pieces has its own generator, so the bytes do not depend on the number of threads.
      constexpr int64_t kRun = 1024;
      InParallel((now + kRun - 1) / kRun, [&](int64_t run) {
        Random random(seed + 1 + static_cast<uint64_t>(done / kRun + run));
        for (int64_t i = run * kRun; i < std::min(now, (run + 1) * kRun); ++i) {
          std::memcpy(buffer_.data() + i * piece_bytes, pool.data() + (random.Next() % kPoolPieces) * piece_bytes,
                      piece_bytes);
        }
      });
      if (absl::Status status = writer_.AppendTensorData(tensor.name, buffer_); !status.ok()) return status;
      done += now;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status WriteFresh(const Tensor& tensor, uint64_t seed) {
    const size_t row_bytes = kernels::RowBytes(tensor.type, tensor.n_in);
    const int64_t chunk_rows = std::max<int64_t>(1, (int64_t{1} << 24) / static_cast<int64_t>(row_bytes));
    for (int64_t done = 0; done < tensor.n_out;) {
      const int64_t now = std::min(chunk_rows, tensor.n_out - done);
      buffer_.resize(now * row_bytes);
      InParallel(now, [&](int64_t row) {
        FillFresh(tensor, seed + 1 + static_cast<uint64_t>(done + row), tensor.n_in, buffer_.data() + row * row_bytes);
      });
      if (absl::Status status = writer_.AppendTensorData(tensor.name, buffer_); !status.ok()) return status;
      done += now;
    }
    return absl::OkStatus();
  }

  absl::Status WriteSparseGate(const Tensor& tensor, uint64_t seed) {
    const size_t row_bytes = kernels::RowBytes(tensor.type, tensor.n_in);
    buffer_.resize(tensor.n_out * row_bytes);
    InParallel(tensor.n_out / tensor.group, [&](int64_t g) {
      Random random(seed + 1 + static_cast<uint64_t>(g));
      std::vector<float> direction(tensor.n_in), row(tensor.n_in);
      for (float& x : direction) x = tensor.deviation * random.Normal();
      for (int64_t i = 0; i < tensor.group; ++i) {
        const float share = static_cast<float>(i) / static_cast<float>(tensor.group);
        const float length = kMostGate + share * (kLeastGate - kMostGate);
        for (int64_t k = 0; k < tensor.n_in; ++k) row[k] = length * direction[k];
        kernels::QuantizeRow(tensor.type, row.data(), buffer_.data() + (g * tensor.group + i) * row_bytes, tensor.n_in);
      }
    });
    return writer_.AppendTensorData(tensor.name, buffer_);
  }

  template <typename Body>
  void InParallel(int64_t n, const Body& body) {
    std::vector<std::thread> threads;
    const int64_t workers = std::min<int64_t>(n_threads_, n);
    for (int64_t w = 0; w < workers; ++w) {
      threads.emplace_back([&, w] {
        for (int64_t i = w; i < n; i += workers) body(i);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  gguf::Writer& writer_;
  const uint64_t seed_;
  const int64_t n_threads_;
  std::vector<std::byte> buffer_;
};

absl::Status Check(const SynthShape& s) {
  if (s.n_vocab < kMinSynthVocabulary) {
    return absl::InvalidArgumentError(absl::StrFormat("shape '%s': expected a vocabulary of at least %d, found %d",
                                                      s.name, kMinSynthVocabulary, s.n_vocab));
  }
  if (std::min({s.n_layer, s.d_model, s.n_head, s.n_kv_head, s.head_dim, s.d_ff, s.context_length}) < 1 ||
      s.n_head % s.n_kv_head != 0 || s.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "shape '%s': every dimension is at least 1, n_head a multiple of n_kv_head, head_dim even", s.name));
  }
  if (!s.rope_scaling.empty() && !(s.rope_scaling_factor >= 1.0f)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("shape '%s': rope_scaling '%s' needs a factor of at least 1", s.name, s.rope_scaling));
  }
  if (s.ffn_active != 0.0) {
    if (!(s.ffn_active >= 0.01 && s.ffn_active <= 0.4)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "shape '%s': expected a share of active neurons of 0 (all) or 0.01 to 0.4, found %g", s.name, s.ffn_active));
    }
    if (s.ffn_group < kernels::kNeuronGroup || s.ffn_group % kernels::kNeuronGroup != 0 || s.d_ff % s.ffn_group != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("shape '%s': expected groups of neurons of a multiple of %d that divides %d, found %d",
                          s.name, kernels::kNeuronGroup, s.d_ff, s.ffn_group));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Synthesize(const SynthShape& shape, DType type, const std::string& path, const SynthOptions& options) {
  if (absl::Status status = Check(shape); !status.ok()) return status;
  for (const DType wanted :
       {type, options.head_type.value_or(type), options.ffn_type.value_or(type), options.gate_type.value_or(type)}) {
    if (kernels::CanQuantize(wanted)) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("synth: type %s is read, not written; expected another, such as q4_0, q4_k or q8_0",
                        kernels::Info(wanted).name));
  }
  absl::StatusOr<gguf::Writer> writer = gguf::Writer::Create(path);
  if (!writer.ok()) return writer.status();
  WriteMetadata(shape, *writer);
  const Plan plan(shape, type, options);
  for (const Tensor& tensor : plan.tensors()) {
    if (tensor.n_out == 1) {
      writer->AddTensor(tensor.name, tensor.type, {tensor.n_in});
    } else {
      writer->AddTensor(tensor.name, tensor.type, {tensor.n_in, tensor.n_out});
    }
  }
  Filler filler(*writer, options);
  for (size_t i = 0; i < plan.tensors().size(); ++i) {
    if (absl::Status status = filler.Write(plan.tensors()[i], i); !status.ok()) return status;
  }
  return writer->Finish();
}

absl::Status Synthesize(const std::string& shape, DType type, const std::string& path, const SynthOptions& options) {
  absl::StatusOr<SynthShape> found = FindShape(shape);
  if (!found.ok()) return found.status();
  return Synthesize(*found, type, path, options);
}

}  // namespace updraft
