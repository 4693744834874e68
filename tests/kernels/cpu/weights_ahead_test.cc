// The order of products is learned, and what is learned stays valid for threads that still look at it.
#include "kernels/cpu/weights_ahead.h"

#include <gtest/gtest.h>

#include <vector>

namespace updraft::kernels {
namespace {

struct Matrix : PackedMatrix {
  Matrix() : PackedMatrix(DType::kQ4_0, 32, 32, 1) {}
};

class WeightsAheadTest : public ::testing::Test {
 protected:
  // What came after the product that begins with m the last time; the beginnings of m are its own address.
  const void* Begin(const Matrix& m, int n_chunks = 8) {
    const MemoryAhead* next = ahead_.Begin(&m, n_chunks, 2, [&](MemoryAhead& begins) {
      ++n_described_;
      begins.Add(1, {&m, n_chunks});
    });
    if (next == nullptr) return nullptr;
    EXPECT_TRUE(next->of(0).empty());
    return next->of(1)[0].from;
  }

  WeightsAhead ahead_;
  int n_described_ = 0;
};

TEST_F(WeightsAheadTest, KnowsTheOrderFromTheSecondPassOn) {
  const Matrix a, b, c;
  for (const Matrix* m : {&a, &b, &c}) EXPECT_EQ(Begin(*m), nullptr);
  for (int pass = 0; pass < 3; ++pass) {
    EXPECT_EQ(Begin(a), &b);
    EXPECT_EQ(Begin(b), &c);
    EXPECT_EQ(Begin(c), &a);
  }
  EXPECT_EQ(n_described_, 3);  // once each
}

TEST_F(WeightsAheadTest, ForgettingSeparates) {
  const Matrix a, b;
  Begin(a);
  ahead_.Forget();
  Begin(b);
  EXPECT_EQ(Begin(a), nullptr);  // b did not follow a; a does follow b
  EXPECT_EQ(Begin(b), &a);
}

TEST_F(WeightsAheadTest, GivesUpWhatKeepsChanging) {
  const Matrix a, b, c;
  for (int i = 0; i < 100; ++i) {
    Begin(a);
    Begin(i % 2 == 0 ? b : c);
  }
  EXPECT_EQ(Begin(a), nullptr);
  EXPECT_LT(n_described_, 20);
  EXPECT_EQ(Begin(b), &a);
}

TEST_F(WeightsAheadTest, AnotherCutIsAnotherProduct) {
  const Matrix a, b;
  Begin(a);
  Begin(b, 8);
  Begin(a);
  Begin(b, 16);
  const int described = n_described_;
  EXPECT_EQ(Begin(a), &b);
  Begin(b, 16);
  EXPECT_EQ(n_described_, described);
}

}  // namespace
}  // namespace updraft::kernels
