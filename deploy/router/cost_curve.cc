#include "deploy/router/cost_curve.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <tuple>

namespace updraft {
namespace {

uint64_t HashOf(std::string_view text, uint64_t seed) {
  uint64_t h = 0xcbf29ce484222325ull ^ (seed * 0x9e3779b97f4a7c15ull);
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return h ^ (h >> 31);
}

}  // namespace

double CostCurve::Apgr() const {
  double area = 0.0;
  for (int i = 1; i < kPoints; ++i) {
    area += (points[i].share - points[i - 1].share) * 0.5 * (points[i].right + points[i - 1].right);
  }
  return (area - weak()) / (strong() - weak());
}

double CostCurve::Cpt(double part) const {
  const double wanted = weak() + part * (strong() - weak());
  for (int i = 1; i < kPoints; ++i) {
    const Point &from = points[i - 1], &to = points[i];
    if (to.right < wanted) continue;
    const double way = to.right > from.right ? (wanted - from.right) / (to.right - from.right) : 1.0;
    return from.share + std::clamp(way, 0.0, 1.0) * (to.share - from.share);
  }
  return 1.0;
}

std::vector<uint32_t> RankByScore(std::span<const RouterOutcome> rows, std::span<const double> scores, uint64_t seed) {
  std::vector<uint64_t> hashes;
  for (const RouterOutcome& row : rows) hashes.push_back(HashOf(row.prompt, seed));
  std::vector<uint32_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::tuple(-scores[a], hashes[a], a) < std::tuple(-scores[b], hashes[b], b);
  });
  return order;
}

CostCurve CurveOf(std::span<const RouterOutcome> rows, std::span<const uint32_t> order,
                  std::span<const uint32_t> times) {
  const auto times_of = [&](uint32_t row) -> int64_t { return times.empty() ? 1 : times[row]; };
  CostCurve curve;
  int64_t n = 0;
  double weak = 0.0;
  for (const uint32_t row : order) {
    n += times_of(row);
    weak += static_cast<double>(times_of(row)) * rows[row].weak;
  }
  curve.n = static_cast<double>(n);
  int64_t sent = 0;
  double fixed = 0.0, broken = 0.0;
  size_t next = 0;
  int64_t left = next < order.size() ? times_of(order[next]) : 0;  // of the row that comes next
  for (int i = 0; i < CostCurve::kPoints; ++i) {
    // Scores >= their decile 10 - i by linear interpolation, which is at position (10 - i) / 10 * (n - 1) of n.
    const int64_t up_to = i == 0 || n == 0 ? 0 : n - ((10 - i) * (n - 1) + 9) / 10;
    while (sent < up_to) {
      if (left == 0) {
        left = times_of(order[++next]);
        continue;
      }
      const int64_t taken = std::min(left, up_to - sent);
      fixed += static_cast<double>(taken) * rows[order[next]].fixes();
      broken += static_cast<double>(taken) * rows[order[next]].breaks();
      sent += taken;
      left -= taken;
    }
    const double all = std::max(curve.n, 1.0);
    curve.points[i] = {static_cast<double>(sent) / all, (weak + fixed - broken) / all, fixed, broken};
  }
  return curve;
}

}  // namespace updraft
