#include "deploy/page/plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr double kLeft = 64, kRight = 28, kTop = 14, kBottom = 46;

double Fraction(const Axis& axis, double value) {
  const double v = std::clamp(value, axis.low, axis.high);
  if (axis.logarithmic) return std::log(v / axis.low) / std::log(axis.high / axis.low);
  return (v - axis.low) / (axis.high - axis.low);
}

std::string TitleElement(std::string_view tooltip) {
  return tooltip.empty() ? "" : "<title>" + EscapeHtml(tooltip) + "</title>";
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        // Control characters have no place in HTML; NUL would end the page for some readers.
        escaped += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return escaped;
}

std::vector<std::pair<double, std::string>> RoundTicks(double low, double high, int count, bool percent) {
  const double scale = percent ? 100.0 : 1.0;
  const double span = (high - low) * scale / std::max(count, 1);
  const double power = std::pow(10.0, std::floor(std::log10(std::max(span, 1e-12))));
  double step = power;
  for (const double multiple : {1.0, 2.0, 5.0, 10.0}) {
    step = multiple * power;
    if (step >= span * 0.999) break;
  }
  std::vector<std::pair<double, std::string>> ticks;
  for (double v = std::ceil(low * scale / step - 1e-9) * step; v <= high * scale + 1e-9; v += step) {
    const double shown = std::abs(v) < step * 1e-6 ? 0.0 : v;
    ticks.emplace_back(shown / scale, percent ? absl::StrFormat("%g %%", shown) : absl::StrFormat("%g", shown));
  }
  return ticks;
}

std::vector<std::pair<double, std::string>> LogTicks(double low, double high) {
  std::vector<std::pair<double, std::string>> ticks;
  // Over more than two decades the 2 and 5 would crowd the axis.
  const bool dense = high / low <= 200.0;
  for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10.0) {
    for (const double multiple : {1.0, 2.0, 5.0}) {
      const double v = multiple * power;
      if (v < low * 0.999 || v > high * 1.001 || (multiple != 1.0 && !dense)) continue;
      ticks.emplace_back(v, v >= 1000.0 ? absl::StrFormat("%g s", v / 1000.0) : absl::StrFormat("%g ms", v));
    }
  }
  return ticks;
}

Plot::Plot(std::string title, int width, int height, Axis x, Axis y)
    : title_(std::move(title)), width_(width), height_(height), x_(std::move(x)), y_(std::move(y)) {}

double Plot::X(double value) const { return kLeft + Fraction(x_, value) * (width_ - kLeft - kRight); }
double Plot::Y(double value) const { return height_ - kBottom - Fraction(y_, value) * (height_ - kTop - kBottom); }

std::string Plot::PathData(const std::vector<XY>& points) const {
  std::string data;
  for (size_t i = 0; i < points.size(); ++i) {
    absl::StrAppendFormat(&data, "%s%.1f %.1f", i == 0 ? "M" : "L", X(points[i].x), Y(points[i].y));
  }
  return data;
}

void Plot::Line(const std::vector<XY>& points, std::string_view css, std::string_view tooltip) {
  if (points.empty()) return;
  absl::StrAppendFormat(&body_, "<path class=\"%s\" d=\"%s\">%s</path>\n", EscapeHtml(css), PathData(points),
                        TitleElement(tooltip));
}

void Plot::Area(const std::vector<XY>& upper, double base, std::string_view css) {
  if (upper.empty()) return;
  absl::StrAppendFormat(&body_, "<path class=\"%s\" d=\"%sL%.1f %.1fL%.1f %.1fZ\"/>\n", EscapeHtml(css),
                        PathData(upper), X(upper.back().x), Y(base), X(upper.front().x), Y(base));
}

void Plot::Dot(XY at, double radius, std::string_view css, std::string_view tooltip) {
  absl::StrAppendFormat(&body_, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%g\">%s</circle>\n", EscapeHtml(css),
                        X(at.x), Y(at.y), radius, TitleElement(tooltip));
}

void Plot::Bar(double x_left, double x_right, double y_low, double y_high, std::string_view css,
               std::string_view tooltip) {
  const double left = X(x_left), top = Y(y_high);
  absl::StrAppendFormat(&body_,
                        "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\">%s</rect>\n",
                        EscapeHtml(css), left, top, std::max(X(x_right) - left, 0.0), std::max(Y(y_low) - top, 0.0),
                        TitleElement(tooltip));
}

void Plot::VerticalLine(double x, std::string_view css, std::string_view tooltip) {
  absl::StrAppendFormat(&body_, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%.1f\">%s</line>\n",
                        EscapeHtml(css), X(x), X(x), kTop, height_ - kBottom, TitleElement(tooltip));
}

void Plot::ErrorBar(double x, double low, double high, std::string_view css) {
  absl::StrAppendFormat(&body_, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                        EscapeHtml(css), X(x), X(x), Y(low), Y(high));
}

void Plot::Label(XY at, double dx, double dy, std::string_view text, std::string_view css, std::string_view anchor) {
  absl::StrAppendFormat(&body_, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n",
                        EscapeHtml(css), X(at.x) + dx, Y(at.y) + dy, EscapeHtml(anchor), EscapeHtml(text));
}

std::string Plot::Render() const {
  std::string svg = absl::StrFormat("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", width_, height_,
                                    EscapeHtml(title_));
  const double bottom = height_ - kBottom, right = width_ - kRight;
  for (const auto& [value, text] : y_.ticks) {
    absl::StrAppendFormat(&svg, "<line class=\"grid\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft, right,
                          Y(value), Y(value));
    absl::StrAppendFormat(&svg, "<text class=\"tick\" x=\"%g\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", kLeft - 8,
                          Y(value) + 4, EscapeHtml(text));
  }
  for (const auto& [value, text] : x_.ticks) {
    absl::StrAppendFormat(&svg, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/>", X(value),
                          X(value), bottom, bottom + 4);
    absl::StrAppendFormat(&svg, "<text class=\"tick\" x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%s</text>\n", X(value),
                          bottom + 18, EscapeHtml(text));
  }
  absl::StrAppendFormat(&svg, "<line class=\"axis\" x1=\"%g\" x2=\"%g\" y1=\"%g\" y2=\"%g\"/>\n", kLeft, right, bottom,
                        bottom);
  absl::StrAppendFormat(&svg, "<text class=\"label\" x=\"%g\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                        (kLeft + right) / 2, height_ - 8, EscapeHtml(x_.label));
  absl::StrAppendFormat(
      &svg,
      "<text class=\"label\" x=\"13\" y=\"%g\" text-anchor=\"middle\" transform=\"rotate(-90 13 %g)\">%s</text>\n",
      (kTop + bottom) / 2, (kTop + bottom) / 2, EscapeHtml(y_.label));
  return svg + body_ + "</svg>\n";
}

}  // namespace updraft
