// A quantity over time that keeps its value from one point to the next: a rate, a delay. Integrals and their inverses
// are exact between points, not sums of small steps. Pure; const members may be called from any thread.
#pragma once

#include <vector>

namespace updraft::relay {

class StepCurve {
 public:
  struct Point {
    double time_s = 0.0;
    double value = 0.0;
  };
  enum class Beyond { kHold, kRepeat };  // after length_s: the last value for ever, or the curve from time 0 again

  // The same value for ever.
  static StepCurve Constant(double value) { return StepCurve({{0.0, value}}, 1.0, Beyond::kHold, 0.0); }

  // points[i].value holds from points[i].time_s until the next point; the first value holds before its point, too.
  // start_s: the curve's time at which this curve's time 0 lies. REQUIRES: points not empty, times ascending (of equal
  // ones the last counts) and >= 0, values finite and >= 0, length_s > 0 and >= the last time, start_s >= 0.
  StepCurve(std::vector<Point> points, double length_s, Beyond beyond, double start_s);

  double At(double t) const;  // t >= 0, here and below
  // Of the curve from 0 to t. A rate in bytes/s gives bytes.
  double Integral(double t) const;
  // The earliest t with Integral(t) >= amount; infinity when there is none. amount >= 0. What is missing by less than
  // Slack(amount) is not missing, so that rounding does not make it wait for the end of an outage.
  double Inverse(double amount) const;

  static double Slack(double amount) { return 1e-6 + 1e-12 * amount; }

  double start_s() const { return start_s_; }
  double length_s() const { return length_s_; }
  Beyond beyond() const { return beyond_; }
  const std::vector<Point>& points() const { return points_; }  // the first lies at 0

 private:
  double Whole(double t) const;  // integral in the curve's own time, from 0
  double WholeInverse(double amount) const;
  double Within(double t) const;  // the same inside one length
  double WithinInverse(double amount, double slack) const;

  std::vector<Point> points_;
  std::vector<double> integrals_;  // at each point
  double length_s_ = 1.0, start_s_ = 0.0, total_ = 0.0 /* over one length */, before_start_ = 0.0;
  Beyond beyond_ = Beyond::kHold;
};

}  // namespace updraft::relay
