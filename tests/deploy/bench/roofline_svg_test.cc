#include "deploy/bench/roofline_svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace updraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

int Count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(RooflineSvgTest, DrawsLimitsAndSeries) {
  const RooflinePoint points[] = {{"q4_0", "matmul q4_0 n_tok 1", 3.5, 140},
                                  {"q4_0", "matmul q4_0 n_tok 8", 28, 1000},
                                  {"f16", "matmul f16 n_tok 1", 1, 40}};
  const std::string svg = RooflineSvg("two cores", {40, {{"int8", 1900}, {"fp32", 480}}}, points);
  EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
  EXPECT_THAT(svg, HasSubstr("</svg>\n"));
  EXPECT_EQ(Count(svg, "<g"), Count(svg, "</g>"));
  EXPECT_EQ(Count(svg, "<circle"), 3 + 2);  // points and legend
  EXPECT_EQ(Count(svg, "hsl("), 2 * 2);     // a line and its marks for each series
  for (const char* text :
       {"two cores", "int8, 1900", "fp32, 480", "memory, 40.0 GB/s", "matmul q4_0 n_tok 8: 1000.0"}) {
    EXPECT_THAT(svg, HasSubstr(text));
  }
}

// A point at the memory's limit lies on its line: x grows by the same share of its axis as the line says.
TEST(RooflineSvgTest, APointAtTheMeetingOfTheRoofsLiesAtTheirCorner) {
  const RooflinePoint corner[] = {{"a", "corner", 10, 400}};
  const std::string svg = RooflineSvg("", {40, {{"peak", 400}}}, corner);
  const size_t circle = svg.find("<circle cx=\"");
  const std::string x = svg.substr(circle + 12, svg.find('"', circle + 12) - circle - 12);
  const size_t y_at = svg.find("cy=\"", circle) + 4;
  const std::string y = svg.substr(y_at, svg.find('"', y_at) - y_at);
  EXPECT_THAT(svg, HasSubstr("L" + x + " " + y + "\" stroke=\"#333\""));  // the memory roof ends there
  EXPECT_THAT(svg, HasSubstr("M" + x + " " + y + "H"));                   // and the peak begins
}

TEST(RooflineSvgTest, LeavesOutWhatCannotBeDrawn) {
  const double inf = std::numeric_limits<double>::infinity();
  const RooflinePoint points[] = {{"cached", "no bytes", inf, 100}, {"zero", "no time", 1, 0}, {"ok", "<&\">", 1, 1}};
  const std::string svg = RooflineSvg("a<b", {0, {{"no height", 0}, {"below zero", -inf}}}, points);
  for (const char* text : {"cached", "zero", "no height", "inf", "a<b", "<&"}) EXPECT_THAT(svg, Not(HasSubstr(text)));
  EXPECT_THAT(svg, HasSubstr("&lt;&amp;&quot;&gt;: 1.0"));
  EXPECT_THAT(RooflineSvg("", {}, {}), HasSubstr("</svg>"));
}

}  // namespace
}  // namespace updraft
