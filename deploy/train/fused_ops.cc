#include "deploy/train/fused_ops.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "deploy/train/fused_math.h"

namespace updraft::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kGrain = 64;  // rows per task

// ---- RMS norm ----

UPDRAFT_CLONES void NormRows(const float* x, const float* gain, int64_t rows, int64_t width, float epsilon,
                             float* inverse, uint16_t* y) {
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + epsilon);
    inverse[r] = scale;
    for (int64_t i = 0; i < width; ++i) y[i] = Store(x[i] * scale * gain[i]);
  }
}

UPDRAFT_CLONES void NormRowsBackward(const float* x, const float* gain, const float* inverse, const uint16_t* dy,
                                     int64_t rows, int64_t width, float* dx, float* dgain) {
  for (int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    const float scale = inverse[r];
    float dot = 0;
    for (int64_t i = 0; i < width; ++i) {
      const float g = Load(dy[i]) * x[i] * scale;
      dgain[i] += g;
      dot += g * gain[i];
    }
    const float back = dot / static_cast<float>(width) * scale * scale;
    for (int64_t i = 0; i < width; ++i) dx[i] = Load(dy[i]) * gain[i] * scale - x[i] * back;
  }
}

class RmsNorm : public Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x_in, const Tensor& gain, double epsilon) {
    const Tensor x = x_in.contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    Tensor y = torch::empty(x.sizes(), torch::kBFloat16);
    Tensor inverse = torch::empty({rows});
    at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
      NormRows(x.data_ptr<float>() + begin * width, gain.data_ptr<float>(), end - begin, width,
               static_cast<float>(epsilon), inverse.data_ptr<float>() + begin, Bits(y) + begin * width);
    });
    context->save_for_backward({x, gain, inverse});
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &gain = saved[1], &inverse = saved[2];
    const Tensor dy = gradients[0].contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    Tensor dx = torch::empty_like(x);
    // Fixed slices with a partial sum each, so that the sum does not depend on how many threads there are.
    const int64_t slices = (rows + kGrain - 1) / kGrain;
    Tensor dgain = torch::zeros({slices, width});
    at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t slice = begin; slice < end; ++slice) {
        const int64_t first = slice * kGrain, count = std::min(kGrain, rows - first);
        NormRowsBackward(x.data_ptr<float>() + first * width, gain.data_ptr<float>(), inverse.data_ptr<float>() + first,
                         Bits(dy) + first * width, count, width, dx.data_ptr<float>() + first * width,
                         dgain.data_ptr<float>() + slice * width);
      }
    });
    return {dx, dgain.sum(0), Tensor()};
  }
};

// ---- SwiGLU ----

UPDRAFT_CLONES void GluRows(const uint16_t* both, int64_t rows, int64_t inner, uint16_t* y) {
  for (int64_t r = 0; r < rows; ++r, both += 2 * inner, y += inner) {
    for (int64_t i = 0; i < inner; ++i) {
      const float gate = Load(both[i]);
      y[i] = Store(gate / (1.0f + Exp(-gate)) * Load(both[inner + i]));
    }
  }
}

UPDRAFT_CLONES void GluRowsBackward(const uint16_t* both, const uint16_t* dy, int64_t rows, int64_t inner,
                                    uint16_t* dboth) {
  for (int64_t r = 0; r < rows; ++r, both += 2 * inner, dboth += 2 * inner, dy += inner) {
    for (int64_t i = 0; i < inner; ++i) {
      const float gate = Load(both[i]), up = Load(both[inner + i]), d = Load(dy[i]);
      const float sigmoid = 1.0f / (1.0f + Exp(-gate));
      dboth[i] = Store(d * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
      dboth[inner + i] = Store(d * gate * sigmoid);
    }
  }
}

class SwiGlu : public Function<SwiGlu> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& both_in) {
    const Tensor both = both_in.contiguous();
    const int64_t inner = both.size(-1) / 2, rows = both.numel() / (2 * inner);
    auto sizes = both.sizes().vec();
    sizes.back() = inner;
    Tensor y = torch::empty(sizes, torch::kBFloat16);
    at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
      GluRows(Bits(both) + begin * 2 * inner, end - begin, inner, Bits(y) + begin * inner);
    });
    context->save_for_backward({both});
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const Tensor both = context->get_saved_variables()[0];
    const Tensor dy = gradients[0].contiguous();
    const int64_t inner = both.size(-1) / 2, rows = both.numel() / (2 * inner);
    Tensor dboth = torch::empty_like(both);
    at::parallel_for(0, rows, kGrain, [&](int64_t begin, int64_t end) {
      GluRowsBackward(Bits(both) + begin * 2 * inner, Bits(dy) + begin * inner, end - begin, inner,
                      Bits(dboth) + begin * 2 * inner);
    });
    return {dboth};
  }
};

// ---- Attention ----
// Matrices of one head: q, k, v and their gradients [time, head] f32; kt and vt [head, time] are transposed. Buffers
// have a vector of slack at the end, which products may read and write.

constexpr int64_t kMaxLanes = 16;
// Vectors of a size that the instruction set has: the compiler keeps wider ones in memory.
template <int kLanes>
struct VectorOf;
template <>
struct VectorOf<8> {
  using Type = float __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct VectorOf<16> {
  using Type = float __attribute__((vector_size(64), aligned(4), may_alias));
};

// One head's slice of rows that are `stride` apart: widened, scaled, and rotated where there are angles.
UPDRAFT_CLONES void LoadHead(const uint16_t* rows, int64_t stride, const float* cosine, const float* sine, float scale,
                             int64_t time, int64_t head, float* out) {
  for (int64_t t = 0; t < time; ++t, rows += stride, out += head) {
    if (cosine == nullptr) {
      for (int64_t i = 0; i < head; ++i) out[i] = Load(rows[i]) * scale;
      continue;
    }
    const float *c = cosine + t * head, *s = sine + t * head;
    for (int64_t i = 0; i < head; i += 2) {
      const float a = Load(rows[i]) * scale, b = Load(rows[i + 1]) * scale;
      out[i] = a * c[i] - b * s[i];
      out[i + 1] = a * s[i] + b * c[i];
    }
  }
}

// The gradient of LoadHead: rotated back and scaled.
UPDRAFT_CLONES void StoreHead(const float* in, const float* cosine, const float* sine, float scale, int64_t time,
                              int64_t head, int64_t stride, uint16_t* rows) {
  for (int64_t t = 0; t < time; ++t, rows += stride, in += head) {
    if (cosine == nullptr) {
      for (int64_t i = 0; i < head; ++i) rows[i] = Store(in[i] * scale);
      continue;
    }
    const float *c = cosine + t * head, *s = sine + t * head;
    for (int64_t i = 0; i < head; i += 2) {
      rows[i] = Store((in[i] * c[i] + in[i + 1] * s[i]) * scale);
      rows[i + 1] = Store((in[i + 1] * c[i] - in[i] * s[i]) * scale);
    }
  }
}

UPDRAFT_CLONES void Transpose(const float* in, int64_t time, int64_t head, float* out) {
  for (int64_t t = 0; t < time; ++t) {
    for (int64_t i = 0; i < head; ++i) out[i * time + t] = in[t * head + i];
  }
}

// y[j] = sum over i < kHead of x[i] * m[i * time + j], for j < n rounded up to whole vectors.
template <int kHead, int kLanes>
UPDRAFT_INLINE void RowTimesMatrix(const float* x, const float* m, int64_t n, int64_t time, float* y) {
  using Lanes = typename VectorOf<kLanes>::Type;
  int64_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
    Lanes sum0 = {}, sum1 = {}, sum2 = {}, sum3 = {};
    for (int i = 0; i < kHead; ++i) {
      const auto* row = reinterpret_cast<const Lanes*>(m + i * time + j);
      sum0 += x[i] * row[0];
      sum1 += x[i] * row[1];
      sum2 += x[i] * row[2];
      sum3 += x[i] * row[3];
    }
    auto* out = reinterpret_cast<Lanes*>(y + j);
    out[0] = sum0;
    out[1] = sum1;
    out[2] = sum2;
    out[3] = sum3;
  }
  for (; j < n; j += kLanes) {
    Lanes even = {}, odd = {};
    for (int i = 0; i < kHead; i += 2) {
      even += x[i] * *reinterpret_cast<const Lanes*>(m + i * time + j);
      odd += x[i + 1] * *reinterpret_cast<const Lanes*>(m + (i + 1) * time + j);
    }
    *reinterpret_cast<Lanes*>(y + j) = even + odd;
  }
}

// p[t] = softmax of q[t] kt over the positions up to t.
template <int kHead, int kLanes>
UPDRAFT_INLINE void Probabilities(const float* q, const float* kt, int64_t time, float* p) {
  for (int64_t t = 0; t < time; ++t, p += time) {
    const int64_t n = t + 1;
    RowTimesMatrix<kHead, kLanes>(q + t * kHead, kt, n, time, p);
    float largest = p[0];
    for (int64_t j = 1; j < n; ++j) largest = std::max(largest, p[j]);
    float sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += (p[j] = Exp(p[j] - largest));
    const float inverse = 1.0f / sum;
    for (int64_t j = 0; j < n; ++j) p[j] *= inverse;
  }
}

template <int kHead, int kLanes>
UPDRAFT_INLINE void HeadForward(const float* q, const float* kt, const float* v, int64_t time, int64_t stride, float* p,
                                uint16_t* out) {
  Probabilities<kHead, kLanes>(q, kt, time, p);
  for (int64_t t = 0; t < time; ++t, p += time, out += stride) {
    float sum[kHead] = {};
    for (int64_t j = 0; j <= t; ++j) {
      for (int i = 0; i < kHead; ++i) sum[i] += p[j] * v[j * kHead + i];
    }
    for (int i = 0; i < kHead; ++i) out[i] = Store(sum[i]);
  }
}

struct HeadGradients {
  float *p, *dp, *dq, *dk, *dv;  // p [time, time], dp [time]: scratch
};

// dy: [time, head]. Adds to dk and dv, writes dq.
template <int kHead, int kLanes>
UPDRAFT_INLINE void HeadBackward(const float* q, const float* k, const float* kt, const float* vt, const float* dy,
                                 int64_t time, const HeadGradients& out) {
  using Lanes = typename VectorOf<kLanes>::Type;
  // As many columns at a time as three sets of registers hold.
  constexpr int kVectors = std::min(4, kHead / kLanes), kColumns = kVectors * kLanes;
  Probabilities<kHead, kLanes>(q, kt, time, out.p);
  for (int64_t t = 0; t < time; ++t) {
    const float* p = out.p + t * time;
    const int64_t n = t + 1;
    RowTimesMatrix<kHead, kLanes>(dy + t * kHead, vt, n, time, out.dp);
    float dot = 0;
    for (int64_t j = 0; j < n; ++j) dot += out.dp[j] * p[j];
    for (int64_t j = 0; j < n; ++j) out.dp[j] = p[j] * (out.dp[j] - dot);
    for (int column = 0; column < kHead; column += kColumns) {
      Lanes query[kVectors], gradient[kVectors], sum[kVectors] = {};
      for (int c = 0; c < kVectors; ++c) {
        query[c] = reinterpret_cast<const Lanes*>(q + t * kHead + column)[c];
        gradient[c] = reinterpret_cast<const Lanes*>(dy + t * kHead + column)[c];
      }
      for (int64_t j = 0; j < n; ++j) {
        const auto* key = reinterpret_cast<const Lanes*>(k + j * kHead + column);
        auto* dk = reinterpret_cast<Lanes*>(out.dk + j * kHead + column);
        auto* dv = reinterpret_cast<Lanes*>(out.dv + j * kHead + column);
        for (int c = 0; c < kVectors; ++c) {
          sum[c] += out.dp[j] * key[c];
          dk[c] += out.dp[j] * query[c];
          dv[c] += p[j] * gradient[c];
        }
      }
      for (int c = 0; c < kVectors; ++c) reinterpret_cast<Lanes*>(out.dq + t * kHead + column)[c] = sum[c];
    }
  }
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define UPDRAFT_WIDE __attribute__((target("arch=x86-64-v4")))
bool IsWide() {
  static const bool wide = __builtin_cpu_supports("x86-64-v4") != 0;
  return wide;
}
#else
#define UPDRAFT_WIDE
bool IsWide() { return false; }
#endif

#define UPDRAFT_HEAD_BODIES(TARGET, NAME, SIZE, LANES)                                                              \
  TARGET void HeadForward##NAME(const float* q, const float* kt, const float* v, int64_t time, int64_t stride,      \
                                float* p, uint16_t* out) {                                                          \
    HeadForward<SIZE, LANES>(q, kt, v, time, stride, p, out);                                                       \
  }                                                                                                                 \
  TARGET void HeadBackward##NAME(const float* q, const float* k, const float* kt, const float* vt, const float* dy, \
                                 int64_t time, const HeadGradients& out) {                                          \
    HeadBackward<SIZE, LANES>(q, k, kt, vt, dy, time, out);                                                         \
  }
UPDRAFT_HEAD_BODIES(UPDRAFT_CLONES, 32, 32, 8)
UPDRAFT_HEAD_BODIES(UPDRAFT_CLONES, 64, 64, 8)
UPDRAFT_HEAD_BODIES(UPDRAFT_WIDE, 32Wide, 32, 16)
UPDRAFT_HEAD_BODIES(UPDRAFT_WIDE, 64Wide, 64, 16)
#undef UPDRAFT_HEAD_BODIES

struct HeadBodies {
  decltype(&HeadForward32) forward;
  decltype(&HeadBackward32) backward;
};
HeadBodies BodiesFor(int64_t head) {
  if (head == 32)
    return IsWide() ? HeadBodies{HeadForward32Wide, HeadBackward32Wide} : HeadBodies{HeadForward32, HeadBackward32};
  return IsWide() ? HeadBodies{HeadForward64Wide, HeadBackward64Wide} : HeadBodies{HeadForward64, HeadBackward64};
}

struct AttentionShape {
  int64_t batch, time, heads, kv_heads, head;

  int64_t columns() const { return (heads + 2 * kv_heads) * head; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head)); }
  size_t HeadElements() const { return static_cast<size_t>(time * head + kMaxLanes); }
  size_t ScoreElements() const { return static_cast<size_t>(time * time + kMaxLanes); }
};

class Attention : public Function<Attention> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& qkv_in, const Tensor& cosine, const Tensor& sine,
                        int64_t heads, int64_t kv_heads) {
    const Tensor qkv = qkv_in.contiguous();
    const AttentionShape s{qkv.size(0), qkv.size(1), heads, kv_heads, qkv.size(2) / (heads + 2 * kv_heads)};
    Tensor out = torch::empty({s.batch, s.time, heads * s.head}, torch::kBFloat16);
    const float *c = cosine.data_ptr<float>(), *w = sine.data_ptr<float>();
    at::parallel_for(0, s.batch * heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> q(s.HeadElements()), k(q), kt(q), v(q), p(s.ScoreElements());
      for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / heads, h = task % heads, kv = h / (heads / kv_heads);
        const uint16_t* rows = Bits(qkv) + b * s.time * s.columns();
        LoadHead(rows + h * s.head, s.columns(), c, w, s.scale(), s.time, s.head, q.data());
        LoadHead(rows + (heads + kv) * s.head, s.columns(), c, w, 1, s.time, s.head, k.data());
        LoadHead(rows + (heads + kv_heads + kv) * s.head, s.columns(), nullptr, nullptr, 1, s.time, s.head, v.data());
        Transpose(k.data(), s.time, s.head, kt.data());
        BodiesFor(s.head).forward(q.data(), kt.data(), v.data(), s.time, heads * s.head, p.data(),
                                  Bits(out) + b * s.time * heads * s.head + h * s.head);
      }
    });
    context->save_for_backward({qkv, cosine, sine});
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor& qkv = saved[0];
    const int64_t heads = context->saved_data["heads"].toInt(), kv_heads = context->saved_data["kv_heads"].toInt();
    const AttentionShape s{qkv.size(0), qkv.size(1), heads, kv_heads, qkv.size(2) / (heads + 2 * kv_heads)};
    const Tensor dout = gradients[0].contiguous();
    Tensor dqkv = torch::empty_like(qkv);
    // A task is a key head with all its query heads, so that no two tasks add to one gradient.
    at::parallel_for(0, s.batch * kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t b = task / kv_heads;
        KeyHeadBackward(s, task % kv_heads, Bits(qkv) + b * s.time * s.columns(),
                        Bits(dout) + b * s.time * heads * s.head, saved[1].data_ptr<float>(),
                        saved[2].data_ptr<float>(), Bits(dqkv) + b * s.time * s.columns());
      }
    });
    return {dqkv, Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  static void KeyHeadBackward(const AttentionShape& s, int64_t kv, const uint16_t* rows, const uint16_t* dout,
                              const float* cosine, const float* sine, uint16_t* drows) {
    std::vector<float> q(s.HeadElements()), k(q), kt(q), v(q), vt(q), dy(q), dq(q), dk(q), dv(q);
    std::vector<float> p(s.ScoreElements()), dp(static_cast<size_t>(s.time + kMaxLanes));
    const int64_t groups = s.heads / s.kv_heads;
    const int64_t key_at = (s.heads + kv) * s.head, value_at = (s.heads + s.kv_heads + kv) * s.head;
    LoadHead(rows + key_at, s.columns(), cosine, sine, 1, s.time, s.head, k.data());
    LoadHead(rows + value_at, s.columns(), nullptr, nullptr, 1, s.time, s.head, v.data());
    Transpose(k.data(), s.time, s.head, kt.data());
    Transpose(v.data(), s.time, s.head, vt.data());
    for (int64_t h = kv * groups; h < (kv + 1) * groups; ++h) {
      LoadHead(rows + h * s.head, s.columns(), cosine, sine, s.scale(), s.time, s.head, q.data());
      LoadHead(dout + h * s.head, s.heads * s.head, nullptr, nullptr, 1, s.time, s.head, dy.data());
      BodiesFor(s.head).backward(q.data(), k.data(), kt.data(), vt.data(), dy.data(), s.time,
                                 {p.data(), dp.data(), dq.data(), dk.data(), dv.data()});
      StoreHead(dq.data(), cosine, sine, s.scale(), s.time, s.head, s.columns(), drows + h * s.head);
    }
    StoreHead(dk.data(), cosine, sine, 1, s.time, s.head, s.columns(), drows + key_at);
    StoreHead(dv.data(), nullptr, nullptr, 1, s.time, s.head, s.columns(), drows + value_at);
  }
};

}  // namespace

Tensor FusedRmsNorm(const Tensor& x, const Tensor& gain, double epsilon) { return RmsNorm::apply(x, gain, epsilon); }

Tensor FusedSwiGlu(const Tensor& both) { return SwiGlu::apply(both); }

Tensor FusedAttention(const Tensor& qkv, const Tensor& cosine, const Tensor& sine, int64_t heads, int64_t kv_heads) {
  return Attention::apply(qkv, cosine, sine, heads, kv_heads);
}

bool FusedAttentionSupports(int64_t head) { return head == 32 || head == 64; }

}  // namespace updraft::train
