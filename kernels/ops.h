// The table of operations that a forward pass calls, resolved once when a model is loaded. CPU and CUDA differ in the
// table, not in the story that common/model/forward.cc tells.
//
// Rules that every implementation keeps:
//  * All activations are row-major f32; shapes are written [n_tok, width]. `n_tok` >= 1.
//  * The value of a row never depends on the other rows of the call, on `n_tok` or on the number of threads: a prompt
//    processed at once, in chunks, or token by token gives the same bits on one instruction set. Speculation, chunked
//    prefill, preemption and the tests rely on it.
//  * Numbers that operations read or write lie in the memory of the Ops itself (memory.h; on the CPU, in any):
//    activations, keys and values, gains, biases, scores. Lists that say which rows are meant (tokens, positions, rows
//    and their block tables), freq_factors and the bytes that matrices are made of are the host's.
//  * Operations on rows return before their work is done where that helps, and never throw. What goes wrong in one,
//    memory that cannot be had included, is a fault that TakeFault tells; all that follow do nothing. Making matrices
//    is the exception: it throws std::bad_alloc.
//  * Nothing allocates after a few passes of the largest shape; shapes were validated at load.
//  * Outputs never alias inputs unless the comment says "in place".
//  * One Ops object is used by one thread at a time; it uses its own thread pool inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/formats/dtype.h"
#include "kernels/kv_layout.h"
#include "kernels/memory.h"

namespace updraft::kernels {

// A weight matrix W [n_out, n_in] in the layout that one implementation wants. Made by Ops::Pack at load; owns its
// bytes unless the implementation reads the file's layout in place (then the mapped file must outlive it).
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  DType type() const { return type_; }                   // type of the file's tensor, before packing
  int64_t n_out() const { return n_out_; }               // rows
  int64_t n_in() const { return n_in_; }                 // columns: the contracted dimension
  size_t packed_bytes() const { return packed_bytes_; }  // bytes read by one MatMul with n_tok = 1

 protected:
  PackedMatrix(DType type, int64_t n_out, int64_t n_in, size_t packed_bytes)
      : type_(type), n_out_(n_out), n_in_(n_in), packed_bytes_(packed_bytes) {}

 private:
  DType type_;
  int64_t n_out_, n_in_;
  size_t packed_bytes_;
};

// Bytes of one packed matrix that were kept elsewhere, for Ops::FromPacked.
class PackedSource {
 public:
  virtual ~PackedSource() = default;
  // Writes bytes [offset, offset + to.size()) of the matrix's PackedBytes to `to`; false when they cannot be had.
  // Called by several threads at once; must not throw.
  virtual bool Read(size_t offset, std::span<uint8_t> to) = 0;
};

// FromPacked asks for the bytes in pieces [i * kPackedPiece, (i + 1) * kPackedPiece), the last one shorter, each once
// and in no order: small enough that a source which looks at what it read finds it in a core's private cache.
inline constexpr size_t kPackedPiece = size_t{256} << 10;

// What a product adds beside its weights W: y += B (A x), for A [rank, n_in] and B [n_out, rank] (low-rank adaptation,
// Hu et al. 2021). Made by Ops::PackLowRank at load; owns its bytes.
class LowRank {
 public:
  virtual ~LowRank() = default;
  int64_t rank() const { return rank_; }
  int64_t n_out() const { return n_out_; }
  int64_t n_in() const { return n_in_; }
  size_t packed_bytes() const { return packed_bytes_; }  // bytes read by one MatMul with n_tok = 1

 protected:
  LowRank(int64_t rank, int64_t n_out, int64_t n_in, size_t packed_bytes)
      : rank_(rank), n_out_(n_out), n_in_(n_in), packed_bytes_(packed_bytes) {}

 private:
  int64_t rank_, n_out_, n_in_;
  size_t packed_bytes_;
};

// One product of a group that shares its input: y [n_tok, n_out] = x W^T (+ bias) (+ x A^T B^T).
struct MatMulTarget {
  const PackedMatrix* w = nullptr;
  float* y = nullptr;                 // row stride = y_stride floats
  int64_t y_stride = 0;               // 0: n_out
  const float* bias = nullptr;        // [n_out] or null
  bool accumulate = false;            // y += ... instead of y = ... (residual connections)
  const LowRank* low_rank = nullptr;  // of w's shape and for its type, or null
};

// The input of a product: rows x [n_tok, n_in]. Where there is a gain [n_in] they are first normalized as by RmsNorm,
// to the same bits, but without a pass of its own through memory.
struct MatMulInput {
  const float* x = nullptr;
  const float* gain = nullptr;  // or null
  float eps = 0.0f;
};

// Rotary position embedding (Su et al. 2021) with the scalings that GGUF files state.
struct RopeParams {
  int n_rot = 0;            // leading dimensions of a head that rotate (even)
  bool interleaved = true;  // true: pairs (2i, 2i+1), GGUF `llama`; false: (i, i + n_rot/2), NeoX style
  float freq_base = 10000.0f;
  float freq_scale = 1.0f;  // linear scaling: position * freq_scale
  // [n_rot/2] divides each frequency (Llama-3 `rope_freqs`), or null. The host's; the same numbers as long as it lives.
  const float* freq_factors = nullptr;
  float ext_factor = 0.0f;   // YaRN mix (Peng et al. 2023); 0: off
  float attn_factor = 1.0f;  // magnitude multiplier on cos and sin
  float beta_fast = 32.0f, beta_slow = 1.0f;
  int n_ctx_orig = 0;  // YaRN: context length of training
};

// Paged key/value storage of one layer (kv_layout.h). Position p of a sequence lives in block table[p / block_tokens],
// slot p % block_tokens. k and v: [n_blocks][n_kv_head][KvHeadBytes]. CPU attention is fastest where block_tokens is a
// multiple of 16.
struct KvLayer {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
};

// A row is one token of one sequence. The blocks of the row's sequence are block_table[0 ..
// ceil((position+1)/block_tokens)).
struct AttentionRow {
  const int32_t* block_table = nullptr;
  int32_t position = 0;  // attends to positions [max(0, position - window + 1), position]
};

struct AttentionArgs {
  const float* q = nullptr;            // [n_tok, n_head, head_dim], already rotated
  float* out = nullptr;                // [n_tok, n_head, head_dim]
  std::span<const AttentionRow> rows;  // [n_tok]
  KvLayer kv;
  KvShape shape;
  int n_head = 0;      // a multiple of n_kv_head (grouped-query attention)
  float scale = 0.0f;  // usually 1/sqrt(head_dim)
  int window = 0;      // sliding window in tokens; 0: unlimited
  // With a window: the first n_sink positions stay in sight (StreamingLLM's attention sinks, Xiao et al. 2023).
  int n_sink = 0;
  // [n_head] or null: per head a score that takes its part of the softmax and brings no value, so that a head may
  // attend to nothing (the learned sinks of gpt-oss, 2025). Below +infinity.
  const float* sink_scores = nullptr;
};

// A gated feed-forward layer, down (silu(gate x) * (up x)), and which of its neurons a token may skip.
//
// Contextual sparsity: the neurons form groups of `group` consecutive ones; a group whose largest |silu(gate x)| lies
// below `threshold` counts as zero for that token, as thresholding the gate's activation does one neuron at a time
// (CATS, Lee et al. 2024). Groups are what memory can skip: whole tiles of `up`, whole blocks of inputs of `down`.
struct FeedForwardWeights {
  const PackedMatrix* gate = nullptr;  // [d_ff, d_model]
  const PackedMatrix* up = nullptr;    // [d_ff, d_model]
  const PackedMatrix* down = nullptr;  // [d_model, d_ff]
  int group = 0;                       // 0: every neuron counts; else a multiple of kNeuronGroup that divides d_ff
  float threshold = 0.0f;
  const LowRank* gate_low_rank = nullptr;  // or null, as are all three
  const LowRank* up_low_rank = nullptr;
  const LowRank* down_low_rank = nullptr;
};
inline constexpr int kNeuronGroup = 32;

struct FeedForwardArgs {
  MatMulInput x;  // [n_tok, d_model]
  int n_tok = 0;
  float* y = nullptr;  // [n_tok, d_model], added to; may be x.x
  // [n_tok, d_ff] each, for intermediate values; their contents afterwards are unspecified.
  float* gate = nullptr;
  float* up = nullptr;
  // Skipping is worth it up to this share of active groups (Ops::TuneSparsity). Decides about time alone: the result is
  // the same, bit for bit, unless weights of a skipped neuron are NaN or infinite. 0 where `up` or `down` have a
  // low-rank addition.
  float sparse_share = 1.0f;
};

// How fast a machine skips.
struct SparsityTuning {
  struct Point {
    float active = 0.0f;   // share of groups
    float speedup = 0.0f;  // time of up and down with all neurons / with the active ones
  };
  std::vector<Point> points;
  float sparse_share = 0.0f;  // up to which skipping won; 0: never
};

// How matrices of one type and shape were laid out by Pack, where there are two ways: with their zeros, or without,
// which reads less and does more.
struct LayoutChoice {
  DType type = DType::kF32;
  int64_t n_out = 0;
  int64_t n_in = 0;
  bool kept = false;         // without the zeros
  float speedup_one = 0.0f;  // time with zeros / without: one row, as a token that is written takes it
  // 0 where one row does not win already:
  float speedup_many = 0.0f;     // many rows, as a prompt takes them
  float speedup_request = 0.0f;  // kPromptRows of many and one alone; decides
  static constexpr int kPromptRows = 8;
};

class Ops : public Memory {
 public:
  // e.g. "cpu/avx512bf16, 2 threads" or, where CpuOptions::pin_threads asked for it, "cpu/avx2, 8 threads, pinned";
  // "8 threads, 7 pinned" when the system refused one or no thread has called Pack or MatMul yet.
  virtual std::string name() const = 0;
  virtual int n_threads() const = 0;

  // Lays out W [n_out, n_in] given in the file's row-major block format. `data` holds n_out * RowBytes(type, n_in)
  // bytes and must outlive the result. Uses all threads. Never fails: every type of kernels/formats has a general path.
  virtual std::unique_ptr<PackedMatrix> Pack(DType type, int64_t n_out, int64_t n_in, const void* data) = 0;

  // A table [n_rows, width] whose rows EmbedRows reads, given as for Pack.
  virtual std::unique_ptr<PackedMatrix> Table(DType type, int64_t n_rows, int64_t width, const void* data) = 0;

  // What is added beside a matrix [n_out, n_in] that Pack makes of `type`: a [rank, n_in] and b [n_out, rank], finite
  // numbers of the host's, read during the call only; rank >= 1. Beside quantized weights A, B and B's inputs are
  // rounded to 8 bits, with a scale for 32 inputs of a rank of A, for an output of B and for a token, after powers of
  // two have brought the ranks of A to one size; beside others A and B stay as they are.
  virtual std::unique_ptr<LowRank> PackLowRank(DType type, int64_t rank, int64_t n_out, int64_t n_in, const float* a,
                                               const float* b) = 0;

  // What Pack measured so far on this machine, for types that leave out elements: once for each type and shape, a tenth
  // of a second each. Either layout gives the same bits.
  virtual std::vector<LayoutChoice> layout_choices() const { return {}; }

  // Packing costs more time than reading its result, so what Pack makes can be kept beyond the process: PackedBytes of
  // a matrix, given back to FromPacked by any process with the same PackedLayout, makes the same matrix.
  //
  // A number for the meaning of PackedBytes: another one whenever the same W would give other bytes.
  virtual uint32_t PackedLayout() const = 0;
  // How many bytes Pack makes of such a matrix, for arguments that Pack takes; 0: it is read in place or
  // laid out as measured, so there is nothing to keep.
  virtual size_t PackedSize(DType type, int64_t n_out, int64_t n_in) const = 0;
  // Those bytes, little-endian; views into `w`, which this object packed. Empty where PackedSize is 0.
  virtual std::span<const uint8_t> PackedBytes(const PackedMatrix& w) const = 0;
  // The matrix whose PackedSize(type, n_out, n_in) > 0 bytes `source` has; null when it has them not. Wrong bytes make
  // wrong weights but no wrong access. Uses all threads.
  virtual std::unique_ptr<PackedMatrix> FromPacked(DType type, int64_t n_out, int64_t n_in, PackedSource& source) = 0;

  // Says which rows the next calls are about: until the next call, Rope, StoreKv and Attention that are given these
  // very spans find in them what is there now. A device copies them to its memory here, once for all layers. Up to two
  // lists are in use at a time: slot 0 and slot 1.
  virtual void AnnounceRows(int /*slot*/, std::span<const int32_t> /*positions*/,
                            std::span<const AttentionRow> /*rows*/, int /*block_tokens*/) {}

  // All targets read the same x [n_tok, n_in], which is normalized and quantized once for all, as the weights' types
  // ask for it.
  virtual void MatMul(std::span<const MatMulTarget> targets, const MatMulInput& x, int n_tok) = 0;

  // out[i, :] = dequantized row tokens[i] of a table that Table made.
  virtual void EmbedRows(const PackedMatrix& table, std::span<const int32_t> tokens, float* out) = 0;

  // y = x / rms(x) * gain, each row alone; sums in f32 with a fixed order. y may equal x.
  virtual void RmsNorm(const float* x, const float* gain, int n_rows, int width, float eps, float* y) = 0;

  // Rotates x [n_tok, n_head, head_dim] in place; token t is at positions[t].
  virtual void Rope(float* x, std::span<const int32_t> positions, int n_head, int head_dim,
                    const RopeParams& params) = 0;

  // out = silu(gate) * up, n values; out may equal gate.
  virtual void SwiGlu(const float* gate, const float* up, int64_t n, float* out) = 0;

  // y += down (silu(gate x) * (up x)), without the groups of neurons that the token skips. Reads only the weights of
  // the others where that is faster: one token, quantized `up` and `down`, at most args.sparse_share of the groups
  // active.
  virtual void FeedForward(const FeedForwardWeights& w, const FeedForwardArgs& args) = 0;

  // Measures here and now, with these very weights, up to which share of active groups skipping is faster; takes some
  // ten milliseconds. Layers of one shape and type; all with group > 0.
  virtual SparsityTuning TuneSparsity(std::span<const FeedForwardWeights> layers) = 0;

  // Writes k, v [n_tok, n_kv_head, head_dim] of each row to its position's slot.
  virtual void StoreKv(const float* k, const float* v, std::span<const AttentionRow> rows, const KvLayer& kv,
                       const KvShape& shape) = 0;

  // Causal softmax attention over paged keys and values; rows may belong to different sequences.
  virtual void Attention(const AttentionArgs& args) = 0;
};

struct CpuOptions {
  int n_threads = 0;  // 0: what the process may use (affinity and cgroup quota)
  // Each thread stays on one CPU, neighbours on one NUMA node, so that packed weights lie near the thread that reads
  // them. Confines the threads that call Pack or MatMul too, for good: see ThreadPool's constructor (thread_pool.h).
  // name() says ", pinned". Weights that are read in place (PackedMatrix) lie where the system cached the file.
  bool pin_threads = false;
};

// The best implementation for this machine; the environment variable UPDRAFT_FORCE_ISA (reference, portable, avx2,
// avxvnni, avx512vnni, avx512vbmi2, avx512bf16, neon, neon_dotprod, neon_i8mm) picks another that the machine supports
// (an unsupported or unknown name is reported on stderr and ignored).
std::unique_ptr<Ops> MakeCpuOps(const CpuOptions& options);

}  // namespace updraft::kernels
