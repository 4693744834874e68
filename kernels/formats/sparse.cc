#include "kernels/formats/sparse.h"

#include <algorithm>
#include <cmath>

#include "kernels/formats/sanitize.h"

namespace updraft::kernels {
namespace {

constexpr int kKept = 16;

// Scale and codes of the kept elements, as in q8_0.
uint16_t EncodeKept(const float* kept, int8_t* codes) {
  float greatest = 0.0f;
  for (int i = 0; i < kKept; ++i) greatest = std::max(greatest, std::fabs(kept[i]));
  const float d = greatest / 127.0f;
  const float inverse = d > 0.0f ? 1.0f / d : 0.0f;
  for (int i = 0; i < kKept; ++i) {
    const float scaled = std::isfinite(inverse) ? kept[i] * inverse : 0.0f;
    codes[i] = static_cast<int8_t>(std::clamp(std::round(scaled), -127.0f, 127.0f));
  }
  return SaturatedF16(d);
}

// The element's place when magnitudes are sorted, greatest first, equal ones in the order in which they stand.
int Rank(const float* x, int n, int element) {
  int rank = 0;
  for (int i = 0; i < n; ++i) {
    const float other = std::fabs(x[i]);
    const float own = std::fabs(x[element]);
    rank += other > own || (other == own && i < element) ? 1 : 0;
  }
  return rank;
}

}  // namespace

void Unpack(const BlockQ8_2of4& b, int8_t* codes, float* scales) {
  scales[0] = scales[1] = F16ToF32(b.d);
  std::fill_n(codes, BlockQ8_2of4::kElems, int8_t{0});
  for (int i = 0; i < kKept; ++i) codes[i / 2 * 4 + (b.index[i / 4] >> (2 * (i % 4)) & 3)] = b.qs[i];
}

void Unpack(const BlockQ8_16of32& b, int8_t* codes, float* scales) {
  scales[0] = scales[1] = F16ToF32(b.d);
  int n_kept = 0;
  for (int i = 0; i < BlockQ8_16of32::kElems; ++i) {
    const bool kept = (b.mask[i / 8] >> (i % 8) & 1) != 0 && n_kept < kKept;
    codes[i] = kept ? b.qs[n_kept++] : int8_t{0};
  }
}

void EncodeBlock(const float* x, BlockQ8_2of4& b) {
  float kept[kKept];
  std::fill_n(b.index, sizeof(b.index), uint8_t{0});
  int n_kept = 0;
  for (int i = 0; i < BlockQ8_2of4::kElems; ++i) {
    if (Rank(x + i / 4 * 4, 4, i % 4) >= 2) continue;
    b.index[n_kept / 4] |= static_cast<uint8_t>((i % 4) << (2 * (n_kept % 4)));
    kept[n_kept++] = x[i];
  }
  b.d = EncodeKept(kept, b.qs);
}

void EncodeBlock(const float* x, BlockQ8_16of32& b) {
  float kept[kKept];
  std::fill_n(b.mask, sizeof(b.mask), uint8_t{0});
  int n_kept = 0;
  for (int i = 0; i < BlockQ8_16of32::kElems; ++i) {
    if (Rank(x, BlockQ8_16of32::kElems, i) >= kKept) continue;
    b.mask[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
    kept[n_kept++] = x[i];
  }
  b.d = EncodeKept(kept, b.qs);
}

}  // namespace updraft::kernels
