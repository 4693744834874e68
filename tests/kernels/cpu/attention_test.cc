// Paged attention and the KV store against the double-precision reference, and bit for bit across instruction sets,
// batch compositions, block sizes and thread counts.
#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/formats/float16.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

// Keys and values of a few sequences in scattered blocks; unused slots hold NaN, which nobody may touch.
class PagedKv {
 public:
  PagedKv(KvShape shape, const std::vector<int>& lengths, uint64_t seed) : shape_(shape) {
    int n_blocks = 0;
    for (const int length : lengths) {
      tables_.emplace_back((length + shape.block_tokens - 1) / shape.block_tokens);
      n_blocks += static_cast<int>(tables_.back().size());
    }
    std::vector<int32_t> order(n_blocks);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 bits(seed);
    std::shuffle(order.begin(), order.end(), bits);
    // 0x7e7e is a NaN in half precision, and so is every scale read from it.
    k_.assign(static_cast<size_t>(n_blocks) * shape.n_kv_head * KvHeadBytes(shape), std::byte{0x7e});
    v_ = k_;
    for (size_t s = 0, next = 0; s < lengths.size(); ++s) {
      for (int32_t& block : tables_[s]) block = order[next++];
    }
    const int width = shape.n_kv_head * shape.head_dim;
    for (size_t s = 0; s < lengths.size(); ++s) {
      const auto k = Gaussian(lengths[s] * width, 100 * s + 1);  // of the sequence alone, whatever the blocks
      const auto v = Gaussian(lengths[s] * width, 100 * s + 2);
      const auto rows = Rows(s, 0, lengths[s]);
      MakeCpuOpsFor(Isa::kReference, 1)->StoreKv(k.data(), v.data(), rows, layer(), shape_);
    }
  }

  std::vector<AttentionRow> Rows(size_t sequence, int from, int to) const {
    std::vector<AttentionRow> rows;
    for (int p = from; p < to; ++p) rows.push_back({tables_[sequence].data(), p});
    return rows;
  }
  KvLayer layer() { return {k_.data(), v_.data()}; }
  const KvShape& shape() const { return shape_; }
  const std::vector<std::byte>& k() const { return k_; }
  const std::vector<std::byte>& v() const { return v_; }

 private:
  KvShape shape_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::byte> k_, v_;
};

struct Sight {
  int window = 0;
  int n_sink = 0;
  const float* sink_scores = nullptr;
};

std::vector<float> Attend(Ops& ops, PagedKv& kv, const std::vector<AttentionRow>& rows, const float* q, int n_head,
                          Sight sight) {
  const int dim = kv.shape().head_dim;
  std::vector<float> out(rows.size() * n_head * dim, -7.0f);
  AttentionArgs args;
  args.q = q;
  args.out = out.data();
  args.rows = rows;
  args.kv = kv.layer();
  args.shape = kv.shape();
  args.n_head = n_head;
  args.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  args.window = sight.window;
  args.n_sink = sight.n_sink;
  args.sink_scores = sight.sink_scores;
  ops.Attention(args);
  return out;
}

struct Case {
  int n_head, n_kv_head, head_dim, block_tokens, window;
  KvType type = KvType::kF16;
  int n_sink = 0;
  bool sink_scores = false;
};

class AttentionTest : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionTest, MatchesTheReferenceAndIsTheSameHoweverItIsCut) {
  const Case c = GetParam();
  const std::vector<int> lengths = {150, 1, 16, 33};
  PagedKv kv({c.n_kv_head, c.head_dim, c.block_tokens, c.type}, lengths, 5);
  std::vector<AttentionRow> rows;  // all of the first sequence, as in a prompt, and the last token of the others
  for (size_t s = 0; s < lengths.size(); ++s) {
    const auto more = kv.Rows(s, s == 0 ? 0 : lengths[s] - 1, lengths[s]);
    rows.insert(rows.end(), more.begin(), more.end());
  }
  const int width = c.n_head * c.head_dim;
  const auto q = Gaussian(rows.size() * width, 9);
  auto sink_scores = Gaussian(c.n_head, 10);
  sink_scores.back() = -std::numeric_limits<float>::infinity();  // as if there were none
  const Sight sight{c.window, c.n_sink, c.sink_scores ? sink_scores.data() : nullptr};
  const auto exact = Attend(*MakeCpuOpsFor(Isa::kReference, 1), kv, rows, q.data(), c.n_head, sight);
  const auto portable = Attend(*MakeCpuOpsFor(Isa::kPortable, 1), kv, rows, q.data(), c.n_head, sight);

  // A score is a sum of head_dim products of normal values: off by less than head_dim 2^-24 sum|q k| scale, with
  // sum|q k| < 2 head_dim here. A weight is off by that, relatively, plus 4e-7 for two exponentials and the
  // rescaling; the output is a mean of |v| < 5 with these weights, plus its own roundings.
  const double score_error = (c.head_dim + 2.0) * 0x1p-24 * 2 * std::sqrt(static_cast<double>(c.head_dim));
  const double bound = 5 * (2 * score_error + 4e-7 + 160 * 0x1p-24);
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(portable[i], exact[i], bound) << i;

  for (const Isa isa : VectorIsas()) {
    SCOPED_TRACE(IsaName(isa));
    for (const int threads : {1, 2, 3, 7}) {
      EXPECT_TRUE(SameBits(Attend(*MakeCpuOpsFor(isa, threads), kv, rows, q.data(), c.n_head, sight), portable))
          << threads << " threads";
    }
    std::vector<float> one_by_one;
    const auto ops = MakeCpuOpsFor(isa, 2);
    for (size_t t = 0; t < rows.size(); ++t) {
      const auto row = Attend(*ops, kv, {rows[t]}, q.data() + t * width, c.n_head, sight);
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    }
    EXPECT_TRUE(SameBits(one_by_one, portable)) << "row by row";
  }
  PagedKv other({c.n_kv_head, c.head_dim, c.block_tokens + 5, c.type}, lengths, 6);
  std::vector<AttentionRow> other_rows;
  for (size_t s = 0; s < lengths.size(); ++s) {
    const auto more = other.Rows(s, s == 0 ? 0 : lengths[s] - 1, lengths[s]);
    other_rows.insert(other_rows.end(), more.begin(), more.end());
  }
  EXPECT_TRUE(SameBits(Attend(*MakeCpuOps({}), other, other_rows, q.data(), c.n_head, sight), portable))
      << "other block size";
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionTest,
    ::testing::Values(Case{8, 2, 64, 16, 0}, Case{8, 8, 8, 16, 0}, Case{4, 1, 80, 32, 0}, Case{32, 4, 64, 7, 20},
                      Case{3, 3, 128, 16, 1}, Case{6, 2, 24, 1, 16}, Case{14, 2, 64, 16, 0}, Case{80, 1, 128, 48, 70},
                      Case{8, 2, 64, 16, 0, KvType::kI8}, Case{4, 1, 80, 32, 0, KvType::kI8},
                      Case{6, 2, 24, 1, 16, KvType::kI8}, Case{8, 8, 8, 7, 0, KvType::kI8},
                      Case{8, 2, 64, 16, 0, KvType::kI4}, Case{4, 1, 80, 32, 0, KvType::kI4},
                      Case{6, 2, 24, 1, 16, KvType::kI4}, Case{3, 3, 10, 7, 0, KvType::kI4},
                      Case{8, 2, 64, 16, 20, KvType::kF16, 4}, Case{6, 2, 24, 7, 1, KvType::kF16, 70},
                      Case{8, 2, 64, 16, 90, KvType::kI8, 3, true}, Case{32, 4, 64, 16, 0, KvType::kF16, 4, true}),
    [](const auto& info) {
      const Case& c = info.param;
      return std::to_string(c.n_head) + "x" + std::to_string(c.n_kv_head) + "x" + std::to_string(c.head_dim) +
             "_block" + std::to_string(c.block_tokens) + "_window" + std::to_string(c.window) + "_" +
             KvTypeName(c.type) + (c.n_sink > 0 ? "_sinks" + std::to_string(c.n_sink) : "") +
             (c.sink_scores ? "_scores" : "");
    });

TEST(AttentionRowsTest, NanStaysInItsRow) {
  PagedKv kv({2, 32, 16}, {20, 20}, 3);
  auto rows = kv.Rows(0, 10, 20);
  const auto more = kv.Rows(1, 10, 20);
  rows.insert(rows.end(), more.begin(), more.end());
  const int width = 4 * 32;
  auto q = Gaussian(rows.size() * width, 4);
  const auto ops = MakeCpuOps({2});
  const auto clean = Attend(*ops, kv, rows, q.data(), 4, {});
  q[3 * width + 40] = std::numeric_limits<float>::quiet_NaN();  // row 3, head 1
  const auto out = Attend(*ops, kv, rows, q.data(), 4, {});
  for (size_t i = 0; i < out.size(); ++i) {
    if (i >= 3 * width + 32 && i < 3 * width + 64) {
      EXPECT_TRUE(std::isnan(out[i])) << i;
    } else {
      EXPECT_EQ(out[i], clean[i]) << i;
    }
  }
}

// A head whose sink scores far above every key attends to nothing; far below, to what it would attend to anyway.
TEST(AttentionRowsTest, SinkScoresTakeTheirPartOfTheSoftmax) {
  PagedKv kv({1, 16, 16}, {40}, 3);
  const auto rows = kv.Rows(0, 30, 40);
  const auto q = Gaussian(rows.size() * 3 * 16, 4);
  const float scores[] = {80.0f, -80.0f, 1.0f};
  const auto ops = MakeCpuOps({2});
  const auto without = Attend(*ops, kv, rows, q.data(), 3, {});
  const auto with = Attend(*ops, kv, rows, q.data(), 3, {.sink_scores = scores});
  for (size_t i = 0; i < with.size(); ++i) {
    const size_t head = i / 16 % 3;
    switch (head) {
      case 0:
        EXPECT_NEAR(with[i], 0.0, 1e-12) << i;
        break;
      case 1:
        EXPECT_FLOAT_EQ(with[i], without[i]) << i;
        break;
      default:
        EXPECT_LT(std::fabs(with[i]), std::fabs(without[i])) << i;
    }
  }
}

// What lies between the sinks and the window is never read.
TEST(AttentionRowsTest, OnlySinksAndWindowAreRead) {
  PagedKv kv({1, 16, 16}, {100}, 3);
  const auto all = kv.Rows(0, 0, 100);
  const std::vector<float> nan(16 * 100, std::numeric_limits<float>::quiet_NaN());
  const auto q = Gaussian(2 * 16, 4);
  const auto ops = MakeCpuOps({1});
  const auto rows = kv.Rows(0, 98, 100);  // windows of 20: positions 79 .. 99
  const auto clean = Attend(*ops, kv, rows, q.data(), 1, {.window = 20, .n_sink = 5});
  ops->StoreKv(nan.data(), nan.data(), std::span(all).subspan(5, 74), kv.layer(), kv.shape());
  EXPECT_TRUE(SameBits(Attend(*ops, kv, rows, q.data(), 1, {.window = 20, .n_sink = 5}), clean));
  ops->StoreKv(nan.data(), nan.data(), {&all[4], 1}, kv.layer(), kv.shape());
  EXPECT_TRUE(std::isnan(Attend(*ops, kv, rows, q.data(), 1, {.window = 20, .n_sink = 5})[0]));
}

// A key that a row may not see yet is NaN: earlier rows of the same pass are untouched.
TEST(AttentionRowsTest, LaterKeysDoNotReachEarlierRows) {
  PagedKv kv({1, 16, 16}, {12}, 3);
  const auto rows = kv.Rows(0, 0, 12);
  const auto q = Gaussian(rows.size() * 16, 4);
  const auto ops = MakeCpuOps({1});
  const auto clean = Attend(*ops, kv, rows, q.data(), 1, {});
  const std::vector<float> nan(16, std::numeric_limits<float>::quiet_NaN());
  ops->StoreKv(nan.data(), nan.data(), {&rows[9], 1}, kv.layer(), kv.shape());
  const auto out = Attend(*ops, kv, rows, q.data(), 1, {});
  for (size_t i = 0; i < out.size(); ++i) {
    if (i < 9 * 16) {
      EXPECT_EQ(out[i], clean[i]) << i;
    } else {
      EXPECT_TRUE(std::isnan(out[i])) << i;
    }
  }
}

TEST(AttentionRowsTest, LargeScoresDoNotOverflow) {
  PagedKv kv({1, 16, 16}, {40}, 3);
  const auto rows = kv.Rows(0, 39, 40);
  auto q = Gaussian(16, 4);
  for (float& x : q) x *= 1e4f;
  const auto exact = Attend(*MakeCpuOpsFor(Isa::kReference, 1), kv, rows, q.data(), 1, {});
  const auto out = Attend(*MakeCpuOps({1}), kv, rows, q.data(), 1, {});
  for (size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], exact[i], 1e-2) << i;  // scores of 1e4 have steps of 1e-3
}

TEST(StoreKvTest, EveryInstructionSetStoresTheBitsOfTheReference) {
  for (const KvType type : {KvType::kF16, KvType::kI8, KvType::kI4}) {
    const KvShape shape{3, 24, 5, type};
    const int n_tok = 13;
    PagedKv expected(shape, {n_tok}, 8);
    auto k = Gaussian(n_tok * 3 * 24, 1);
    auto v = Gaussian(n_tok * 3 * 24, 2);
    k[0] = 70000.0f;  // overflows to infinity
    k[1] = 1e-7f;     // subnormal
    v[2] = -0.0f;
    const auto rows = expected.Rows(0, 0, n_tok);
    MakeCpuOpsFor(Isa::kReference, 1)->StoreKv(k.data(), v.data(), rows, expected.layer(), shape);
    for (const Isa isa : VectorIsas()) {
      PagedKv kv(shape, {n_tok}, 8);
      MakeCpuOpsFor(isa, 2)->StoreKv(k.data(), v.data(), kv.Rows(0, 0, n_tok), kv.layer(), shape);
      EXPECT_EQ(kv.k(), expected.k()) << IsaName(isa);
      EXPECT_EQ(kv.v(), expected.v()) << IsaName(isa);
    }
  }
}

// Every number within half a step of its group, and the bytes that the layout states.
TEST(StoreKvTest, QuantizedNumbersAreTheNearestOfTheirGroup) {
  for (const KvType type : {KvType::kI8, KvType::kI4}) {
    const KvShape shape{2, 72, 3, type};
    EXPECT_EQ(KvHeadBytes(shape), type == KvType::kI8 ? 2u * 3 * 3 + 3 * 80 : 2u * 3 * 3 + 3 * 48);
    const int n_tok = 8, width = 2 * 72;
    PagedKv kv(shape, {n_tok}, 21);
    auto k = Gaussian(n_tok * width, 22);
    auto v = Gaussian(n_tok * width, 23);
    for (int i = 32; i < 64; ++i) k[i] = 0.0f;  // a group of nothing
    k[72 + 1] = std::numeric_limits<float>::quiet_NaN();
    v[5] = std::numeric_limits<float>::infinity();
    const auto rows = kv.Rows(0, 0, n_tok);
    MakeCpuOps({1})->StoreKv(k.data(), v.data(), rows, kv.layer(), shape);
    for (int t = 0; t < n_tok; ++t) {
      for (int head = 0; head < 2; ++head) {
        const size_t at = (static_cast<size_t>(rows[t].block_table[t / 3]) * 2 + head) * KvHeadBytes(shape);
        for (int d = 0; d < 72; ++d) {
          for (const bool key : {true, false}) {
            const float* x = (key ? k : v).data() + t * width + head * 72;
            const float got =
                key ? KvKeyAt(shape, kv.layer().k + at, t % 3, d) : KvValueAt(shape, kv.layer().v + at, t % 3, d);
            float most = 0;
            bool finite = true;
            for (int i = d / 32 * 32; i < std::min(72, d / 32 * 32 + 32); ++i) {
              finite = finite && std::isfinite(x[i]);
              most = std::max(most, std::fabs(x[i]));
            }
            if (!finite) {
              EXPECT_TRUE(std::isnan(got));
              continue;
            }
            // Half a step; codes of 4 bits end at 7 on one side, a whole step short of 8; the scale is rounded to
            // 2^-11.
            const float step = most / (type == KvType::kI8 ? 127 : 8);
            EXPECT_NEAR(got, x[d], step * (type == KvType::kI8 ? 0.5f : 1.0f) + most * 0x1p-11f) << "dimension " << d;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace updraft::kernels
