// Kernels in a roofline plot (Williams, Waterman and Patterson 2009): speed over operations per byte, beside what
// memory and arithmetic allow.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace updraft {

// A straight limit: the slope of memory or the height of an arithmetic unit.
struct RooflineLimits {
  double gb_s = 0;  // 10^9 bytes per second
  struct Peak {
    std::string name;
    double gflop_s = 0;  // 10^9 operations per second
  };
  std::vector<Peak> peaks;
};

// Points of one series are joined in the order given.
struct RooflinePoint {
  std::string series;  // "q4_0"
  std::string label;   // what a pointer resting on the point shows
  double flops_per_byte = 0;
  double gflop_s = 0;
};

// A whole SVG document with log-log axes that hold everything given. Points that are not positive and finite are left
// out, as are limits that are not.
std::string RooflineSvg(const std::string& title, const RooflineLimits& limits, std::span<const RooflinePoint> points);

}  // namespace updraft
