// The report's charts, each one <svg> element.
#pragma once

#include <string>

#include "deploy/demo/record.h"

namespace updraft {

std::string AccuracyPlot(const DemoReport& report);     // accuracy against share escalated
std::string LatencyPlot(const DemoReport& report);      // share of answers within a time, by who answered
std::string ReliabilityPlot(const DemoReport& report);  // stated confidence against observed accuracy
std::string ExitPlot(const DemoReport& report);         // tokens by the depth at which they were decided
std::string FamilyPlot(const DemoReport& report);       // accuracy by family: edge, together, cloud

}  // namespace updraft
