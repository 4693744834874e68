#include "kernels/cpu/layout_choice.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/aligned_buffer.h"

namespace updraft::kernels {
namespace {

constexpr int kTurns = 5;
constexpr int kManyRows = 256;  // a prompt's
constexpr float kWins = 1.02f;  // less is noise
constexpr double kSecondsPerTurn = 2e-4;
constexpr double kEnough = 0.05;  // seconds of turns, of which there is at least one
// Of a matrix: a model of such matrices is larger than a cache.
constexpr size_t kLarge = size_t{2} << 20;
constexpr size_t kEvict = size_t{64} << 20;

template <typename Body>
double SecondsOf(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of repeated measurements: what disturbs them only ever adds.
double Least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

// Seconds per row.
struct Times {
  double whole = 0.0;
  double kept = 0.0;
};

Times Measure(Ops& ops, const PackedMatrix& whole, const PackedMatrix& kept, int n_rows, AlignedBuffer& other) {
  const std::vector<float> x(n_rows * whole.n_in(), 1.0f);
  std::vector<float> y(n_rows * whole.n_out());
  const auto multiply = [&](const PackedMatrix& w) {
    const MatMulTarget target{.w = &w, .y = y.data()};
    ops.MatMul({&target, 1}, {x.data()}, n_rows);
  };
  multiply(kept);
  const double once = SecondsOf([&] { multiply(whole); });
  const bool evict = n_rows == 1 && other.size() > 0;
  const int calls = evict ? 1 : std::max(1, static_cast<int>(kSecondsPerTurn / std::max(once, 1e-7)));
  const auto timed = [&](const PackedMatrix& w, int turn) {
    if (evict) std::memset(other.data(), turn, other.size());
    const double seconds = SecondsOf([&] {
      for (int i = 0; i < calls; ++i) multiply(w);
    });
    return seconds / calls / n_rows;
  };
  std::vector<double> of_whole, of_kept;
  double spent = 0.0;
  for (int turn = 0; turn < kTurns && spent < kEnough; ++turn) {
    spent += SecondsOf([&] {
      of_whole.push_back(timed(whole, turn));
      of_kept.push_back(timed(kept, turn));
    });
  }
  return {Least(of_whole), Least(of_kept)};
}

}  // namespace

LayoutChoice ChooseLayout(Ops& ops, const PackedMatrix& whole, const PackedMatrix& kept) {
  AlignedBuffer other = whole.packed_bytes() >= kLarge ? AlignedBuffer(kEvict) : AlignedBuffer();
  LayoutChoice choice{.type = whole.type(), .n_out = whole.n_out(), .n_in = whole.n_in()};
  const Times one = Measure(ops, whole, kept, 1, other);
  choice.speedup_one = static_cast<float>(one.whole / one.kept);
  if (choice.speedup_one < kWins) return choice;  // what saves bytes does not win where bytes count for less
  const Times many = Measure(ops, whole, kept, kManyRows, other);
  const auto request = [&](double Times::*layout) { return one.*layout + LayoutChoice::kPromptRows * many.*layout; };
  choice.speedup_many = static_cast<float>(many.whole / many.kept);
  choice.speedup_request = static_cast<float>(request(&Times::whole) / request(&Times::kept));
  choice.kept = choice.speedup_request >= kWins;
  return choice;
}

}  // namespace updraft::kernels
