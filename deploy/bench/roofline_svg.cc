#include "deploy/bench/roofline_svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace updraft {
namespace {

constexpr double kLeft = 70, kTop = 50, kWidth = 760, kHeight = 470, kLegend = 150;

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

bool IsDrawable(double x) { return std::isfinite(x) && x > 0; }

// A logarithmic axis over whole powers of its base.
class Axis {
 public:
  Axis(double base, double least, double greatest) : base_(base) {
    from_ = std::floor(Log(least));
    to_ = std::max(from_ + 1, std::ceil(Log(greatest)));
  }
  double Fraction(double value) const { return (Log(value) - from_) / (to_ - from_); }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    for (double power = from_; power <= to_; ++power) ticks.push_back(std::pow(base_, power));
    return ticks;
  }
  double least() const { return std::pow(base_, from_); }
  double greatest() const { return std::pow(base_, to_); }

 private:
  double Log(double value) const { return std::log(value) / std::log(base_); }
  double base_, from_, to_;
};

class Plot {
 public:
  Plot(Axis x, Axis y) : x_(x), y_(y) {}

  double X(double value) const { return kLeft + kWidth * x_.Fraction(value); }
  double Y(double value) const { return kTop + kHeight * (1 - y_.Fraction(value)); }

  std::string Grid() const {
    std::string svg;
    for (const double tick : x_.Ticks()) {
      absl::StrAppendFormat(&svg, R"svg(<path d="M%.1f %.1fV%.1f" stroke="#ddd"/>)svg", X(tick), kTop, kTop + kHeight);
      absl::StrAppendFormat(&svg, R"svg(<text x="%.1f" y="%.1f" text-anchor="middle">%g</text>)svg", X(tick),
                            kTop + kHeight + 18, tick);
    }
    for (const double tick : y_.Ticks()) {
      absl::StrAppendFormat(&svg, R"svg(<path d="M%.1f %.1fH%.1f" stroke="#ddd"/>)svg", kLeft, Y(tick), kLeft + kWidth);
      absl::StrAppendFormat(&svg, R"svg(<text x="%.1f" y="%.1f" text-anchor="end">%g</text>)svg", kLeft - 8,
                            Y(tick) + 4, tick);
    }
    return svg;
  }

  // From the bottom or the left edge up to the height of the highest peak.
  std::string MemoryRoof(double gb_s, double highest) const {
    const double from = std::max(x_.least(), y_.least() / gb_s);
    const double to = std::min({x_.greatest(), highest / gb_s, y_.greatest() / gb_s});
    if (to <= from) return "";
    return absl::StrFormat(
        R"svg(<path d="M%.1f %.1fL%.1f %.1f" stroke="#333" stroke-width="2"><title>memory, %.1f GB/s</title></path>)svg",
        X(from), Y(from * gb_s), X(to), Y(to * gb_s), gb_s);
  }

  // From where memory allows it to the right edge.
  std::string PeakRoof(const RooflineLimits::Peak& peak, double gb_s) const {
    const double from = IsDrawable(gb_s) ? std::clamp(peak.gflop_s / gb_s, x_.least(), x_.greatest()) : x_.least();
    return absl::StrFormat(
        R"svg(<path d="M%.1f %.1fH%.1f" stroke="#333" stroke-width="2"/><text x="%.1f" y="%.1f" text-anchor="end">%s, %.0f</text>)svg",
        X(from), Y(peak.gflop_s), kLeft + kWidth, kLeft + kWidth - 4, Y(peak.gflop_s) - 5, Escaped(peak.name),
        peak.gflop_s);
  }

 private:
  Axis x_, y_;
};

}  // namespace

std::string RooflineSvg(const std::string& title, const RooflineLimits& limits, std::span<const RooflinePoint> points) {
  std::vector<RooflinePoint> drawn;
  std::vector<std::string> series;
  double x_least = 1, x_greatest = 1, y_least = 100, y_greatest = 100, highest = 0;
  for (const RooflinePoint& point : points) {
    if (!IsDrawable(point.flops_per_byte) || !IsDrawable(point.gflop_s)) continue;
    drawn.push_back(point);
    if (std::find(series.begin(), series.end(), point.series) == series.end()) series.push_back(point.series);
    x_least = std::min(x_least, point.flops_per_byte);
    x_greatest = std::max(x_greatest, point.flops_per_byte);
    y_least = std::min(y_least, point.gflop_s);
    y_greatest = std::max(y_greatest, point.gflop_s);
  }
  for (const RooflineLimits::Peak& peak : limits.peaks) {
    if (IsDrawable(peak.gflop_s)) highest = std::max(highest, peak.gflop_s);
  }
  const Plot plot(Axis(4, x_least, x_greatest), Axis(10, y_least, std::max(y_greatest, highest)));

  std::string svg = absl::StrFormat(
      R"svg(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12" fill="none">)svg"
      "\n"
      R"svg(<rect width="100%%" height="100%%" fill="white"/><g fill="black"><text x="%.0f" y="28" font-size="16">%s</text>)svg"
      R"svg(<text x="%.0f" y="%.0f" text-anchor="middle">operations per byte of weights</text>)svg"
      R"svg(<text transform="translate(18 %.0f) rotate(-90)" text-anchor="middle">10^9 operations per second</text>)svg"
      "\n",
      kLeft + kWidth + kLegend, kTop + kHeight + 50, kLeft, Escaped(title), kLeft + kWidth / 2, kTop + kHeight + 40,
      kTop + kHeight / 2);
  absl::StrAppend(&svg, plot.Grid(), "\n");
  if (IsDrawable(limits.gb_s) && highest > 0) absl::StrAppend(&svg, plot.MemoryRoof(limits.gb_s, highest));
  for (const RooflineLimits::Peak& peak : limits.peaks) {
    if (IsDrawable(peak.gflop_s)) absl::StrAppend(&svg, plot.PeakRoof(peak, limits.gb_s));
  }
  absl::StrAppend(&svg, "</g>\n");
  for (size_t s = 0; s < series.size(); ++s) {
    const std::string color = absl::StrFormat("hsl(%d 70%% 40%%)", static_cast<int>(360 * s / series.size()));
    std::string line, marks;
    for (const RooflinePoint& point : drawn) {
      if (point.series != series[s]) continue;
      const double x = plot.X(point.flops_per_byte), y = plot.Y(point.gflop_s);
      absl::StrAppendFormat(&line, "%c%.1f %.1f", line.empty() ? 'M' : 'L', x, y);
      absl::StrAppendFormat(&marks, R"svg(<circle cx="%.1f" cy="%.1f" r="4"><title>%s: %.1f</title></circle>)svg", x, y,
                            Escaped(point.label), point.gflop_s);
    }
    const double step = std::min(18.0, kHeight / static_cast<double>(series.size()));
    const double y = kTop + 14 + step * static_cast<double>(s);
    absl::StrAppendFormat(&svg,
                          R"svg(<path d="%s" stroke="%s"/><g fill="%s">%s<circle cx="%.0f" cy="%.0f" r="4"/>)svg"
                          R"svg(<text x="%.0f" y="%.0f">%s</text></g>)svg"
                          "\n",
                          line, color, color, marks, kLeft + kWidth + 20, y - 4, kLeft + kWidth + 30, y,
                          Escaped(series[s]));
  }
  return svg + "</svg>\n";
}

}  // namespace updraft
