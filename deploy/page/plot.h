// Small charts as inline SVG: axes, lines, points, bars, tooltips. Colours are CSS classes of the page, so that light
// and dark work.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace updraft {

// Text made safe for element content and quoted attributes.
std::string EscapeHtml(std::string_view text);

struct Axis {
  std::string label;
  double low = 0.0, high = 1.0;  // low < high; both > 0 when logarithmic
  bool logarithmic = false;
  std::vector<std::pair<double, std::string>> ticks;
};

// Round ticks that cover [low, high]: about `count` of them, printed with the unit appended. percent: values are
// shares, shown times 100.
std::vector<std::pair<double, std::string>> RoundTicks(double low, double high, int count, bool percent);
// 1, 2, 5, 10, ... within [low, high].
std::vector<std::pair<double, std::string>> LogTicks(double low, double high);

class Plot {
 public:
  // width, height: of the view box; the page scales it. title: for screen readers.
  Plot(std::string title, int width, int height, Axis x, Axis y);

  struct XY {
    double x, y;
  };
  // css: class names, such as "line edge". tooltip: shown on hover; empty: none.
  void Line(const std::vector<XY>& points, std::string_view css, std::string_view tooltip = "");
  void Area(const std::vector<XY>& upper, double base, std::string_view css);  // between the line and y = base
  void Dot(XY at, double radius, std::string_view css, std::string_view tooltip = "");
  void Bar(double x_left, double x_right, double y_low, double y_high, std::string_view css,
           std::string_view tooltip = "");
  void VerticalLine(double x, std::string_view css, std::string_view tooltip = "");
  void ErrorBar(double x, double low, double high, std::string_view css);
  // Text beside a data point; dx, dy in view-box units. anchor: "start", "middle" or "end".
  void Label(XY at, double dx, double dy, std::string_view text, std::string_view css,
             std::string_view anchor = "start");

  std::string Render() const;  // one <svg> element

 private:
  double X(double value) const;
  double Y(double value) const;
  std::string PathData(const std::vector<XY>& points) const;

  std::string title_;
  int width_, height_;
  Axis x_, y_;
  std::string body_;
};

}  // namespace updraft
