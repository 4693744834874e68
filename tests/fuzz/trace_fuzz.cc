// Any bytes as a trace, in every format: refused with a file and a line, or a road that can be driven.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "deploy/relay/link_queue.h"
#include "deploy/relay/trace.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft::relay;

void Require(bool holds) {
  if (!holds) std::abort();
}

// As the parser promises it to StepCurve, which asserts no more than that.
void CheckCurve(const std::vector<StepCurve::Point>& points, double length_s, double highest) {
  double last = 0.0;
  for (const StepCurve::Point& point : points) {
    Require(std::isfinite(point.time_s) && point.time_s >= last && point.time_s <= length_s);
    Require(point.value >= 0.0 && point.value <= highest);
    last = point.time_s;
  }
  if (points.empty()) return;
  for (const StepCurve::Beyond beyond : {StepCurve::Beyond::kHold, StepCurve::Beyond::kRepeat}) {
    const StepCurve curve(points, length_s, beyond, 0.25 * length_s);
    for (const double t : {0.0, 0.3 * length_s, 0.75 * length_s, length_s, 7.7 * length_s}) {
      const double amount = curve.Integral(t);
      Require(amount >= 0.0 && std::isfinite(amount) && curve.At(t) >= 0.0);
      Require(curve.Inverse(amount) <= t * (1.0 + 1e-6) + 1e-6);
    }
  }
}

void Drive(const Trace& trace) {
  if (trace.rate.empty()) return;
  const RoadLane lane = {StepCurve(trace.rate, trace.length_s, StepCurve::Beyond::kRepeat, 0.0),
                         StepCurve::Constant(0.0), StepCurve::Constant(0.0)};
  LinkQueue link(lane, {});
  int64_t arrived = 0;
  std::vector<Parcel> parcels;
  link.Push({1, Mark::kData, 30000}, 0.0);
  for (int i = 0; i < 30 && std::isfinite(link.NextArrival()); ++i) {
    parcels.clear();
    link.Pop(link.NextArrival(), &parcels);
    for (const Parcel& parcel : parcels) arrived += parcel.n_bytes;
  }
  Require(arrived <= 30000);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  constexpr TraceFormat kFormats[] = {
      TraceFormat::kDetect, TraceFormat::kRoad, TraceFormat::kRoadJson, TraceFormat::kOpportunities,
      TraceFormat::kBins,   TraceFormat::kMbps, TraceFormat::k5g,       TraceFormat::kRtt};
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string select = (data[0] & 8) != 0 ? "a" : "";
  const auto trace = ParseTrace(text, "f", select, {.format = kFormats[data[0] & 7]});
  if (!trace.ok()) {
    Require(std::string(trace.status().message()).rfind("f:", 0) == 0);
    return 0;
  }
  CheckCurve(trace->rate, trace->length_s, 1e15);  // packets of a millisecond add up
  CheckCurve(trace->rate_up, trace->length_s, internal::kMaxRate);
  CheckCurve(trace->rate_down, trace->length_s, internal::kMaxRate);
  CheckCurve(trace->delay, trace->length_s, internal::kMaxDelay_s);
  CheckCurve(trace->jitter, trace->length_s, internal::kMaxDelay_s);
  for (const Event& event : trace->events) {
    Require(event.time_s >= 0.0 && event.time_s <= trace->length_s && event.duration_s >= 0.0);
  }
  Drive(*trace);
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string none(1, '\0'), named(1, '\x08');
  for (const std::string& seed :
       {none + "0\n1\n1\n3\n7\n250\n", none + "t_ms,packets_1500B\n0,6\n100,0\n200,13\n",
        none + "t_ms,packets_1500B\n0,3\n1e-300,3\n", named + "trace,t_s,mbps\na,0,8\na,0.5,4.2\nb,0,1\n",
        none + "t_s,mode,dl_kbps,ul_kbps,state,ping_avg_ms\n0,5G,800,10,D,-\n1,5G,90,10,I,40.5\n",
        named + "run,t_ms,delay_ms,cell\na,0,30,x\na,55,20,x\n",
        none + "time_s,rate_up,rate_down,delay_ms,jitter_ms,event,duration_s\n0,1e5,1e6,20,5,,\n10,,0,,,stall,2\n"
               "12,,1e6,,,end,\n",
        none + "{\"time_s\": 0, \"rate_down\": 1e6}\n{\"time_s\": 3, \"event\": \"cut\", \"duration_s\": 1}\n"}) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
