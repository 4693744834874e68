#include "deploy/relay/step_curve.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

namespace updraft::relay {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

StepCurve::StepCurve(std::vector<Point> points, double length_s, Beyond beyond, double start_s)
    : length_s_(length_s), start_s_(start_s), beyond_(beyond) {
  assert(!points.empty() && length_s > 0.0 && start_s >= 0.0);
  points.front().time_s = 0.0;
  for (const Point& point : points) {
    if (!points_.empty() && points_.back().time_s == point.time_s) points_.pop_back();
    points_.push_back(point);
  }
  integrals_.push_back(0.0);
  for (size_t i = 1; i < points_.size(); ++i) {
    assert(points_[i].time_s > points_[i - 1].time_s);
    integrals_.push_back(integrals_.back() + points_[i - 1].value * (points_[i].time_s - points_[i - 1].time_s));
  }
  total_ = Within(length_s_);
  before_start_ = Whole(start_s_);
}

double StepCurve::At(double t) const {
  t += start_s_;
  if (beyond_ == Beyond::kRepeat) t = std::fmod(t, length_s_);
  const auto after = std::upper_bound(points_.begin(), points_.end(), t,
                                      [](double time, const Point& point) { return time < point.time_s; });
  return after == points_.begin() ? points_.front().value : std::prev(after)->value;
}

double StepCurve::Integral(double t) const { return Whole(t + start_s_) - before_start_; }

double StepCurve::Inverse(double amount) const {
  if (amount <= Slack(amount + before_start_)) return 0.0;
  return std::max(0.0, WholeInverse(amount + before_start_) - start_s_);
}

double StepCurve::Whole(double t) const {
  if (beyond_ == Beyond::kHold) return Within(t);
  const double laps = std::floor(t / length_s_);
  return laps * total_ + Within(t - laps * length_s_);
}

double StepCurve::WholeInverse(double amount) const {
  const double slack = Slack(amount);
  if (beyond_ == Beyond::kHold) return WithinInverse(amount, slack);
  if (total_ <= 0.0) return kNever;
  // The last lap may be reached exactly at its end, before the next begins.
  const double laps = std::max(0.0, std::ceil((amount - slack) / total_) - 1.0);
  return laps * length_s_ + std::min(WithinInverse(amount - laps * total_, slack), length_s_);
}

double StepCurve::Within(double t) const {
  const auto after = std::upper_bound(points_.begin(), points_.end(), t,
                                      [](double time, const Point& point) { return time < point.time_s; });
  if (after == points_.begin()) return 0.0;
  const size_t i = static_cast<size_t>(after - points_.begin()) - 1;
  return integrals_[i] + points_[i].value * (t - points_[i].time_s);
}

double StepCurve::WithinInverse(double amount, double slack) const {
  // The first point at which the integral has reached the amount; it is reached in the step before.
  const auto reached = std::lower_bound(integrals_.begin(), integrals_.end(), amount - slack);
  if (reached == integrals_.begin()) return 0.0;
  const size_t i = static_cast<size_t>(reached - integrals_.begin()) - 1;
  const double value = points_[i].value;
  if (value <= 0.0) return kNever;  // only after the last point
  const double end = i + 1 < points_.size() ? points_[i + 1].time_s : kNever;
  return std::min(points_[i].time_s + (amount - integrals_[i]) / value, end);
}

}  // namespace updraft::relay
