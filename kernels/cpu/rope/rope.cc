#include "kernels/cpu/rope/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace updraft::kernels {
namespace {

// The (fractional) pair index, times two, whose angle turns n_turns times within the context of training.
double YarnDimension(const RopeParams& p, double n_turns) {
  return p.n_rot * std::log(p.n_ctx_orig / (n_turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(p.freq_base));
}

// 1 for pairs that keep their angle, 0 for pairs that are interpolated.
double YarnRamp(double low, double high, int pair) {
  const double y = (pair - low) / std::max(0.001, high - low);
  return 1.0 - std::clamp(y, 0.0, 1.0);
}

}  // namespace

void RopeAngles(const RopeParams& params, int32_t position, float* cos, float* sin) {
  const bool yarn = params.ext_factor != 0.0f;
  double magnitude = params.attn_factor;
  double low = 0;
  double high = 0;
  if (yarn) {
    low = std::max(0.0, std::floor(YarnDimension(params, params.beta_fast)));
    high = std::min(params.n_rot - 1.0, std::ceil(YarnDimension(params, params.beta_slow)));
    magnitude *= 1.0 + 0.1 * std::log(1.0 / params.freq_scale);
  }
  for (int i = 0; i < params.n_rot / 2; ++i) {
    double angle = position * std::pow(static_cast<double>(params.freq_base), -2.0 * i / params.n_rot);
    if (params.freq_factors != nullptr) angle /= params.freq_factors[i];
    const double interpolated = angle * params.freq_scale;
    double turned = interpolated;
    if (yarn) {
      const double mix = YarnRamp(low, high, i) * params.ext_factor;
      turned = interpolated * (1.0 - mix) + angle * mix;
    }
    cos[i] = static_cast<float>(std::cos(turned) * magnitude);
    sin[i] = static_cast<float>(std::sin(turned) * magnitude);
  }
}

void RopeRotate(const RopeParams& params, const float* cos, const float* sin, float* head) {
  const int half = params.n_rot / 2;
  const int step = params.interleaved ? 2 : 1;        // from one pair to the next
  const int partner = params.interleaved ? 1 : half;  // from a to b
  for (int i = 0; i < half; ++i) {
    const float a = head[i * step];
    const float b = head[i * step + partner];
    head[i * step] = a * cos[i] - b * sin[i];
    head[i * step + partner] = a * sin[i] + b * cos[i];
  }
}

void RopeTable::Prepare(const RopeParams& params, std::span<const int32_t> positions) {
  const RopeParams& p = params_;
  const bool same_params = p.n_rot == params.n_rot && p.freq_base == params.freq_base &&
                           p.freq_scale == params.freq_scale && p.freq_factors == params.freq_factors &&
                           p.ext_factor == params.ext_factor && p.attn_factor == params.attn_factor &&
                           p.beta_fast == params.beta_fast && p.beta_slow == params.beta_slow &&
                           p.n_ctx_orig == params.n_ctx_orig;
  if (same_params && std::equal(positions.begin(), positions.end(), positions_.begin(), positions_.end())) return;
  positions_.clear();  // nothing is prepared until there is memory for it
  params_ = params;
  half_ = params.n_rot / 2;
  const size_t needed = positions.size() * half_;
  if (cos_.size() < needed) cos_.resize(needed);
  if (sin_.size() < needed) sin_.resize(needed);
  positions_.assign(positions.begin(), positions.end());
  for (size_t t = 0; t < positions_.size(); ++t) {
    RopeAngles(params, positions_[t], cos_.data() + t * half_, sin_.data() + t * half_);
  }
}

}  // namespace updraft::kernels
