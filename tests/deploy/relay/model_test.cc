// The link model against a token bucket that is computed another way: step by step over an explicit list of rates, in
// double precision. On random roads, on recorded ones, and with interruptions that become known on the way.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "deploy/relay/link_queue.h"
#include "deploy/relay/road.h"
#include "deploy/relay/step_curve.h"

namespace updraft::relay {
namespace {

using Beyond = StepCurve::Beyond;
using Points = std::vector<StepCurve::Point>;

// ---- The reference ------------------------------------------------------------------------------------------------

// What a curve says, written out until the horizon.
Points WrittenOut(const Points& points, double length_s, Beyond beyond, double start_s, double horizon_s) {
  Points all;
  for (double lap = 0.0; lap * length_s - start_s < horizon_s; lap += 1.0) {
    for (size_t i = 0; i < points.size(); ++i) {
      all.push_back({(i == 0 ? 0.0 : points[i].time_s) + lap * length_s - start_s, points[i].value});
    }
    if (beyond == Beyond::kHold) break;
  }
  Points from_zero;
  for (const StepCurve::Point& point : all) {
    if (point.time_s <= 0.0) from_zero.clear();
    from_zero.push_back({std::max(point.time_s, 0.0), point.value});
  }
  return from_zero;
}

void SetZero(Points* points, double from, double until) {
  Points out;
  double before = 0.0, last = 0.0;
  bool begun = false, ended = false;
  for (const StepCurve::Point& point : *points) {
    if (!begun && point.time_s >= from) {
      out.push_back({from, 0.0});
      begun = true;
    }
    if (!ended && begun && point.time_s >= until) {
      if (point.time_s > until) out.push_back({until, before});
      ended = true;
    }
    const bool inside = point.time_s >= from && point.time_s < until;
    before = point.value;
    if (!inside) out.push_back(point);
    last = point.value;
  }
  if (!begun) out.push_back({from, 0.0});
  if (!ended) out.push_back({until, last});
  *points = out;
}

// A bucket that fills at the road's rate while somebody waits, and is empty when nobody does.
class TokenBucket {
 public:
  explicit TokenBucket(Points rates) : rates_(std::move(rates)) {}
  // When a segment that enters at `enters` has left.
  double Leaves(double enters, double n_bytes) {
    double t = std::max(enters, free_);
    while (true) {
      while (at_ + 1 < rates_.size() && rates_[at_ + 1].time_s <= t) ++at_;
      const double rate = rates_[at_].value;
      const double end = at_ + 1 < rates_.size() ? rates_[at_ + 1].time_s : LinkQueue::kNever;
      if (rate * (end - t) >= n_bytes && rate > 0.0) return free_ = t + n_bytes / rate;
      if (end == LinkQueue::kNever) return free_ = end;
      n_bytes -= rate * (end - t);
      t = end;
    }
  }

 private:
  Points rates_;
  size_t at_ = 0;
  double free_ = 0.0;
};

double SlowIntegral(const Points& rates, double t) {
  double sum = 0.0;
  for (size_t i = 0; i < rates.size() && rates[i].time_s < t; ++i) {
    const double end = i + 1 < rates.size() ? std::min(rates[i + 1].time_s, t) : t;
    sum += rates[i].value * (end - rates[i].time_s);
  }
  return sum;
}

// ---- Driving the model --------------------------------------------------------------------------------------------

struct Offer {
  double time_s = 0.0;
  Parcel parcel;
};
struct Arrival {
  double time_s = 0.0;
  Parcel parcel;
};
struct Interruption {
  double from_s = 0.0, until_s = 0.0;
};

// Offers what fits, at its time, and pops whenever something arrives. Returns what entered and what arrived.
struct Passage {
  std::vector<Offer> entered;
  std::vector<Arrival> arrived;
};
Passage Drive(LinkQueue* link, std::vector<Offer> offers, std::vector<Interruption> stalls, double horizon_s) {
  Passage run;
  std::vector<Parcel> parcels;
  size_t next_offer = 0, next_stall = 0;
  while (true) {
    const double offer = next_offer < offers.size() ? offers[next_offer].time_s : LinkQueue::kNever;
    const double stall = next_stall < stalls.size() ? stalls[next_stall].from_s : LinkQueue::kNever;
    const double arrival = link->NextArrival();
    const double now = std::min({offer, stall, arrival});
    if (now > horizon_s) return run;
    if (now == stall) {
      link->Stall(stall, stalls[next_stall++].until_s);
      continue;
    }
    if (now == arrival) {
      parcels.clear();
      link->Pop(now, &parcels);
      for (const Parcel& parcel : parcels) run.arrived.push_back({now, parcel});
      continue;
    }
    Parcel parcel = offers[next_offer++].parcel;
    if (parcel.mark == Mark::kData) parcel.n_bytes = std::min(parcel.n_bytes, link->Room(now));
    if (parcel.mark == Mark::kData && parcel.n_bytes == 0) continue;
    link->Push(parcel, now);
    run.entered.push_back({now, parcel});
  }
}

// What the reference makes of what entered: one entry per segment.
std::vector<Arrival> Expected(const std::vector<Offer>& entered, const Points& rates, const StepCurve& delay) {
  TokenBucket bucket(rates);
  std::vector<Arrival> expected;
  double last = 0.0;
  for (const Offer& offer : entered) {
    int64_t rest = offer.parcel.mark == Mark::kData ? offer.parcel.n_bytes : 0;
    do {
      const int64_t n = std::min(rest, LinkQueue::kSegmentBytes);
      const double leaves = bucket.Leaves(
          offer.time_s, static_cast<double>(offer.parcel.mark == Mark::kData ? n : LinkQueue::kMarkBytes));
      if (leaves == LinkQueue::kNever) return expected;
      last = std::max(last, leaves + delay.At(leaves));
      expected.push_back({last, {offer.parcel.stream, offer.parcel.mark, n}});
      rest -= n;
    } while (rest > 0);
  }
  return expected;
}

// The model's arrivals are the reference's, byte for byte and to a microsecond; and the bound holds.
void Compare(const Passage& run, const std::vector<Arrival>& expected, const Points& rates, double horizon_s) {
  size_t at = 0;
  int64_t total = 0;
  for (const Arrival& arrival : run.arrived) {
    int64_t rest = arrival.parcel.n_bytes;
    do {
      ASSERT_LT(at, expected.size());
      const Arrival& segment = expected[at++];
      ASSERT_EQ(arrival.parcel.stream, segment.parcel.stream) << "segment " << at;
      ASSERT_EQ(arrival.parcel.mark, segment.parcel.mark) << "segment " << at;
      ASSERT_NEAR(arrival.time_s, segment.time_s, 1e-6 + 1e-9 * segment.time_s) << "segment " << at;
      rest -= segment.parcel.n_bytes;
    } while (rest > 0);
    ASSERT_EQ(rest, 0) << "segment " << at;
    total += arrival.parcel.n_bytes;
    ASSERT_LE(static_cast<double>(total),
              SlowIntegral(rates, arrival.time_s) + 1e-3 + 1e-9 * static_cast<double>(total));
  }
  // Nothing is lost: what is missing is due after the end.
  for (; at < expected.size(); ++at) ASSERT_GT(expected[at].time_s, horizon_s - 1e-6);
}

// ---- Random roads -------------------------------------------------------------------------------------------------

class RandomRoad {
 public:
  explicit RandomRoad(uint64_t seed) : rng_(seed) {}
  double Uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(rng_); }
  int Int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng_); }

  Points Curve(double low, double high, double zero_share) {
    Points points;
    double t = 0.0;
    for (int i = Int(1, 40); i > 0; --i) {
      points.push_back({t, Uniform(0.0, 1.0) < zero_share ? 0.0 : std::exp(Uniform(std::log(low), std::log(high)))});
      t += Int(0, 3) == 0 ? Uniform(0.0, 2.0) : 0.1 * Int(1, 10);
    }
    points.back().value = std::max(points.back().value, low);
    return points;
  }
  std::vector<Offer> Offers(double horizon_s, double mean_gap_s) {
    std::vector<Offer> offers;
    for (double t = 0.0; t < horizon_s; t += Int(0, 2) == 0 ? 0.0 : Uniform(0.0, 2.0 * mean_gap_s)) {
      Parcel parcel{static_cast<uint64_t>(Int(1, 5)), Mark::kData, Int(1, 5) == 1 ? Int(1, 60000) : Int(1, 3000)};
      if (Int(0, 9) == 0) parcel = {parcel.stream, Mark::kEnd, 0};
      offers.push_back({t, parcel});
    }
    return offers;
  }
  std::mt19937_64& rng() { return rng_; }

 private:
  std::mt19937_64 rng_;
};

TEST(StepCurveTest, IntegralAndInverseAreExactOnRandomCurves) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomRoad random(seed);
    const Points points = random.Curve(1e2, 1e7, 0.3);
    const Beyond beyond = random.Int(0, 1) == 0 ? Beyond::kHold : Beyond::kRepeat;
    const double length_s = points.back().time_s + random.Uniform(0.01, 2.0);
    const double start_s = random.Int(0, 1) == 0 ? 0.0 : random.Uniform(0.0, 2.0 * length_s);
    const StepCurve curve(points, length_s, beyond, start_s);
    const Points rates = WrittenOut(points, length_s, beyond, start_s, 100.0);
    for (int i = 0; i < 50; ++i) {
      const double t = random.Uniform(0.0, 100.0);
      const double expected = SlowIntegral(rates, t);
      ASSERT_NEAR(curve.Integral(t), expected, 1e-6 + 1e-9 * expected) << "t " << t;
      const double amount = expected * random.Uniform(0.0, 1.0);
      const double when = curve.Inverse(amount);
      ASSERT_LE(when, t + 1e-9);
      ASSERT_NEAR(curve.Integral(when), amount, 2e-6 + 1e-9 * amount + StepCurve::Slack(1e9));
      // The earliest: before it there was less.
      if (when > 1e-6) {
        ASSERT_LT(curve.Integral(when - 1e-6), amount + 1e-9 * amount);
      }
    }
  }
}

TEST(StepCurveTest, WhatNeverPassesIsNever) {
  const StepCurve stops({{0.0, 10.0}, {2.0, 0.0}}, 5.0, Beyond::kHold, 0.0);
  EXPECT_EQ(stops.Inverse(20.0), 2.0);
  EXPECT_EQ(stops.Inverse(20.1), LinkQueue::kNever);
  const StepCurve again({{0.0, 10.0}, {2.0, 0.0}}, 5.0, Beyond::kRepeat, 0.0);
  EXPECT_EQ(again.Inverse(20.0), 2.0);
  EXPECT_NEAR(again.Inverse(20.1), 5.01, 1e-9);
  EXPECT_EQ(again.Inverse(40.0), 7.0);
  // Rounding does not make the last byte before an outage wait for its end.
  EXPECT_EQ(again.Inverse(40.0 + 1e-9), 7.0);
  EXPECT_EQ(again.At(6.0), 10.0);
  EXPECT_EQ(stops.At(6.0), 0.0);
}

TEST(LinkQueueTest, AgreesWithATokenBucketOnRandomRoads) {
  size_t n_arrivals = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomRoad random(seed);
    const double horizon_s = 40.0;
    const Points points = random.Curve(1e3, 1e6, 0.25);
    const Beyond beyond = random.Int(0, 1) == 0 ? Beyond::kHold : Beyond::kRepeat;
    const double length_s = points.back().time_s + random.Uniform(0.01, 2.0);
    const double start_s = random.Int(0, 1) == 0 ? 0.0 : random.Uniform(0.0, length_s);
    const StepCurve delay(random.Curve(1e-3, 0.5, 0.1), 100.0, Beyond::kHold, 0.0);
    Points rates = WrittenOut(points, length_s, beyond, start_s, horizon_s);
    std::vector<Interruption> stalls;
    double t = random.Uniform(0.0, 20.0);
    for (int i = random.Int(0, 3); i > 0; --i) {
      stalls.push_back({t, t + random.Uniform(0.0, 3.0)});
      SetZero(&rates, stalls.back().from_s, stalls.back().until_s);
      t = stalls.back().until_s + random.Uniform(0.001, 4.0);
    }
    const RoadLane lane = {StepCurve(points, length_s, beyond, start_s), delay, StepCurve::Constant(0.0)};
    LinkQueue link(lane, {.queue_bytes = random.Int(1500, 200000)});
    const Passage run = Drive(&link, random.Offers(horizon_s, 0.05), stalls, horizon_s);
    ASSERT_NO_FATAL_FAILURE(Compare(run, Expected(run.entered, rates, delay), rates, horizon_s));
    n_arrivals += run.arrived.size();
  }
  EXPECT_GT(n_arrivals, 50'000u);
}

TEST(LinkQueueTest, AgreesWithATokenBucketOnRecordedRoads) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::string data = std::string(source == nullptr ? "." : source) + "/../shared/data/";
  const std::string uplink = data + "bw_mahimahi_lte/dev/ATT-LTE-driving.up.100ms.csv",
                    hsdpa = data + "bw_hsdpa_norway_oboe/dev/hsdpa_norway.csv#norway_bus_1",
                    rtt = data + "rtt_5g_cicv5g_vehicle/dev/Rural_and_off-road.csv#r031";
  if (!std::filesystem::exists(uplink)) GTEST_SKIP() << "not tested: " << uplink << " is not on this machine";
  for (const std::string& path : {uplink, hsdpa}) {
    SCOPED_TRACE(path);
    const auto road = MakeRoad({.trace_up = path, .rtt_trace = rtt, .beyond = Beyond::kRepeat, .start_s = 20.0});
    ASSERT_TRUE(road.ok()) << road.status();
    const double horizon_s = 400.0;
    const StepCurve& rate = road->up.rate;
    const Points rates = WrittenOut(rate.points(), rate.length_s(), rate.beyond(), rate.start_s(), horizon_s);
    RandomRoad random(7);
    LinkQueue link(road->up, {});
    const Passage run = Drive(&link, random.Offers(horizon_s, 0.02), {}, horizon_s);
    ASSERT_GT(run.arrived.size(), 1000u);
    ASSERT_NO_FATAL_FAILURE(Compare(run, Expected(run.entered, rates, road->up.delay), rates, horizon_s));
  }
}

TEST(LinkQueueTest, ABusyLinkPassesWhatItsRateAllows) {
  const RoadLane lane = {StepCurve({{0.0, 1e5}, {1.0, 0.0}, {2.0, 3e5}}, 4.0, Beyond::kRepeat, 0.0),
                         StepCurve::Constant(0.05), StepCurve::Constant(0.0)};
  LinkQueue link(lane, {.queue_bytes = 30000});
  std::vector<Parcel> arrived;
  for (double t = 0.0; t <= 40.0; t += 0.001) {
    link.Pop(t, &arrived);
    if (const int64_t room = link.Room(t); room > 0) link.Push({1, Mark::kData, room}, t);
    ASSERT_EQ(link.Room(t), 0);
    ASSERT_EQ(link.queued_bytes(), 30000);
  }
  int64_t total = 0;
  for (const Parcel& parcel : arrived) total += parcel.n_bytes;
  // Ten laps of 1e5 + 6e5 bytes, but for what is still on the way and the millisecond at which room is looked for.
  EXPECT_NEAR(static_cast<double>(total), 7e6 - 0.05 * 3e5, 2 * 3e5 * 0.001 + 1500);
}

// Small pieces on a long way are kept together, a tick late at most and in order.
TEST(LinkQueueTest, SmallPiecesOnTheWayAreKeptTogether) {
  constexpr double kTick_s = 1e-3, kDelay_s = 1.0;
  const RoadLane lane = {StepCurve::Constant(1e9), StepCurve::Constant(kDelay_s), StepCurve::Constant(0.0)};
  LinkQueue link(lane, {.tick_s = kTick_s});
  std::vector<double> entered;
  std::vector<Parcel> arrived;
  size_t most = 0, n_arrived = 0;
  for (int i = 0; n_arrived < 200'000; ++i) {
    const double now = 1e-5 * i;
    arrived.clear();
    link.Pop(now, &arrived);
    for (const Parcel& parcel : arrived) {
      ASSERT_EQ(parcel.mark, Mark::kData);
      for (int64_t n = 0; n < parcel.n_bytes; ++n, ++n_arrived) {
        ASSERT_GE(now, entered[n_arrived] + kDelay_s);
        ASSERT_LE(now, entered[n_arrived] + kDelay_s + kTick_s + 2e-5);
      }
    }
    if (entered.size() < 200'000) {
      link.Push({1, Mark::kData, 1}, now);
      entered.push_back(now);
    }
    most = std::max(most, link.n_in_flight());
  }
  EXPECT_LE(most, static_cast<size_t>(kDelay_s / kTick_s) + 2);  // and not the 100'000 bytes
}

TEST(LinkQueueTest, RoomComesBackWhenSomethingLeaves) {
  LinkQueue link({StepCurve::Constant(1000.0), StepCurve::Constant(5.0), StepCurve::Constant(0.0)},
                 {.queue_bytes = 3000});
  EXPECT_EQ(link.Room(0.0), 3000);
  link.Push({1, Mark::kData, 3000}, 0.0);
  EXPECT_EQ(link.Room(0.0), 0);
  EXPECT_NEAR(link.NextRoom(), 1.5, 1e-9);
  EXPECT_NEAR(link.NextArrival(), 6.5, 1e-9);
  EXPECT_EQ(link.Room(1.5), 1500);
  link.Push({2, Mark::kEnd, 0}, 1.5);  // a mark is not held up by a full queue, and waits its turn
  EXPECT_EQ(link.Room(3.0), 3000);
  std::vector<Parcel> arrived;
  link.Pop(8.039, &arrived);
  ASSERT_EQ(arrived.size(), 1u);
  EXPECT_EQ(arrived[0].n_bytes, 3000);
  link.Pop(8.041, &arrived);
  ASSERT_EQ(arrived.size(), 2u);
  EXPECT_EQ(arrived[1].mark, Mark::kEnd);
  EXPECT_EQ(link.NextArrival(), LinkQueue::kNever);
}

TEST(LinkQueueTest, AnOpenStallEndsWhenItIsSaid) {
  LinkQueue link({StepCurve::Constant(1000.0), StepCurve::Constant(0.0), StepCurve::Constant(0.0)}, {});
  link.Push({1, Mark::kData, 1000}, 0.0);
  link.Stall(0.4, LinkQueue::kNever);
  EXPECT_EQ(link.NextArrival(), LinkQueue::kNever);
  link.Stall(0.6, 0.8);  // within the other: nothing changes
  EXPECT_EQ(link.NextArrival(), LinkQueue::kNever);
  link.Resume(10.0);
  EXPECT_NEAR(link.NextArrival(), 10.6, 1e-9);
  link.Stall(10.1, 11.1);
  EXPECT_NEAR(link.NextArrival(), 11.6, 1e-9);
  EXPECT_NEAR(link.rate().Integral(11.6), 1000.0, 1e-6);
  link.Clear(11.2);
  EXPECT_EQ(link.NextArrival(), LinkQueue::kNever);
}

// Before a cut the way was long: what was lost on it does not hold up what comes after.
TEST(LinkQueueTest, WhatWasLostHoldsUpNothing) {
  const StepCurve delay({{0.0, 5.0}, {1.0, 0.1}}, 100.0, Beyond::kHold, 0.0);
  LinkQueue link({StepCurve::Constant(1e6), delay, StepCurve::Constant(0.0)}, {});
  link.Push({1, Mark::kData, 1000}, 0.0);
  EXPECT_NEAR(link.NextArrival(), 5.001, 1e-9);
  link.Clear(2.0);
  link.Push({2, Mark::kData, 1000}, 2.0);
  EXPECT_NEAR(link.NextArrival(), 2.101, 1e-9);
}

TEST(LinkQueueTest, JitterIsOfTheSeedAloneAndKeepsTheOrder) {
  const auto arrivals = [](uint64_t seed) {
    LinkQueue link({StepCurve::Constant(1e6), StepCurve::Constant(0.01), StepCurve::Constant(0.03)}, {.seed = seed});
    std::vector<Offer> offers;
    for (int i = 0; i < 400; ++i) offers.push_back({0.02 * i, {static_cast<uint64_t>(i), Mark::kData, 100}});
    return Drive(&link, offers, {}, 100.0).arrived;
  };
  const auto first = arrivals(1), again = arrivals(1), other = arrivals(2);
  ASSERT_EQ(first.size(), 400u);
  double lowest = 1.0, highest = 0.0;
  int n_different = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].parcel.stream, i);
    EXPECT_EQ(first[i].time_s, again[i].time_s);
    n_different += first[i].time_s != other[i].time_s ? 1 : 0;
    if (i > 0) {
      EXPECT_GE(first[i].time_s, first[i - 1].time_s);
    }
    const double late = first[i].time_s - 0.02 * static_cast<double>(i) - 0.0101;
    EXPECT_GE(late, -1e-9);
    EXPECT_LE(late, 0.03 + 1e-9);
    lowest = std::min(lowest, late);
    highest = std::max(highest, late);
  }
  EXPECT_LT(lowest, 0.003);
  EXPECT_GT(highest, 0.027);
  EXPECT_GT(n_different, 300);
}

TEST(EventScheduleTest, EventsOfATraceComeAgainWithIt) {
  const EventSchedule schedule({{3.0, EventKind::kStall, 1.0}, {1.0, EventKind::kCut, 2.0}}, 4.0, Beyond::kRepeat, 2.0,
                               {{0.0, EventKind::kReset, 0.0}, {6.5, EventKind::kBlackhole, 1.0}});
  std::vector<std::pair<double, EventKind>> found;
  for (double t = -1.0; (t = schedule.NextTime(t)) < 10.0;) {
    for (const Event& event : schedule.Between(std::nextafter(t, -1.0), t))
      found.emplace_back(event.time_s, event.kind);
  }
  const std::vector<std::pair<double, EventKind>> expected = {
      {0.0, EventKind::kReset},     {1.0, EventKind::kStall}, {3.0, EventKind::kCut},  {5.0, EventKind::kStall},
      {6.5, EventKind::kBlackhole}, {7.0, EventKind::kCut},   {9.0, EventKind::kStall}};
  EXPECT_EQ(found, expected);
  EXPECT_EQ(schedule.Between(-1.0, 9.5).size(), expected.size());
  EXPECT_EQ(schedule.Count(-1.0, 9.5), static_cast<int64_t>(expected.size()));
  const EventSchedule once({{3.0, EventKind::kStall, 1.0}}, 4.0, Beyond::kHold, 2.0, {});
  EXPECT_EQ(once.NextTime(-1.0), 1.0);
  EXPECT_EQ(once.NextTime(1.0), LinkQueue::kNever);
}

// Against a list that is written out, in the same arithmetic.
TEST(EventScheduleTest, ListsCountsAndFindsTheNextOnRandomSchedules) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomRoad random(seed);
    const double length_s = random.Int(0, 1) == 0 ? random.Int(1, 4) : random.Uniform(0.05, 4.0);
    const double start_s = random.Int(0, 1) == 0 ? random.Int(0, 9) : random.Uniform(0.0, 9.0);
    const Beyond beyond = random.Int(0, 3) == 0 ? Beyond::kHold : Beyond::kRepeat;
    std::vector<Event> events, extra;
    const auto time = [&](double high) {
      return random.Int(0, 1) == 0 ? 0.25 * high * random.Int(0, 4) : random.Uniform(0.0, high);
    };
    for (int i = random.Int(0, 5); i > 0; --i) events.push_back({time(length_s), EventKind::kStall, 1.0});
    for (int i = random.Int(0, 5); i > 0; --i) extra.push_back({time(20.0), EventKind::kReset, 0.0});
    std::vector<double> all;
    for (const Event& event : extra) all.push_back(event.time_s);
    for (const Event& event : events) {
      for (double lap = 0.0; lap < (beyond == Beyond::kRepeat ? 1000.0 : 1.0); lap += 1.0) {
        if (const double t = event.time_s + lap * length_s - start_s; t >= 0.0) all.push_back(t);
      }
    }
    std::sort(all.begin(), all.end());
    const EventSchedule schedule(events, length_s, beyond, start_s, extra);
    for (int i = 0; i < 50; ++i) {
      const double after = i == 0 ? -1.0 : time(20.0), until = after + (random.Int(0, 3) == 0 ? 0.0 : time(20.0));
      std::vector<double> expected, found;
      for (const double t : all) {
        if (t > after && t <= until) expected.push_back(t);
      }
      for (const Event& event : schedule.Between(after, until)) found.push_back(event.time_s);
      ASSERT_EQ(found, expected) << after << " to " << until;
      ASSERT_EQ(schedule.Count(after, until), static_cast<int64_t>(expected.size())) << after << " to " << until;
      const auto next = std::upper_bound(all.begin(), all.end(), after);
      ASSERT_EQ(schedule.NextTime(after), next == all.end() ? LinkQueue::kNever : *next) << after;
    }
  }
}

// What a short file beside a long one comes to, and a long list of events.
TEST(EventScheduleTest, ManyLapsAndManyEventsTakeNoTime) {
  const EventSchedule laps({{0.0, EventKind::kReset, 0.0}, {0.0005, EventKind::kReset, 0.0}}, 0.001, Beyond::kRepeat,
                           0.0, {});
  EXPECT_NEAR(static_cast<double>(laps.Count(-1.0, 1e8)), 2e11, 4.0);
  Road road;
  road.events = laps;
  road.up.rate = StepCurve({{0.0, 1000.0}}, 0.001, Beyond::kRepeat, 0.0);
  EXPECT_NE(Describe(road, 0.0, 1e8).find(" events"), std::string::npos);

  std::vector<Event> many;
  for (int i = 0; i < 1'000'000; ++i) many.push_back({1e-3 * i, EventKind::kReset, 0.0});
  const EventSchedule schedule(many, 1000.0, Beyond::kRepeat, 0.0, many);
  const auto start = std::chrono::steady_clock::now();
  double t = -1.0;
  int64_t n = 0;
  for (int i = 0; i < 20'000; ++i) {  // a look at all of them each time would take minutes
    const double next = schedule.NextTime(t);
    n += static_cast<int64_t>(schedule.Between(t, next).size());
    t = next;
  }
  EXPECT_EQ(n, 40'000);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10.0);
}

TEST(FactsTest, OfAStretchOfRoad) {
  const RoadLane lane = {StepCurve({{0.0, 1e6}, {6.0, 0.0}, {8.0, 2e6}}, 10.0, Beyond::kRepeat, 0.0),
                         StepCurve({{0.0, 0.01}, {9.0, 0.2}}, 10.0, Beyond::kRepeat, 0.0), StepCurve::Constant(0.0)};
  const LaneFacts facts = FactsOf(lane, 0.0, 30.0);
  EXPECT_NEAR(facts.mean_rate, 1e6, 1e-3);
  EXPECT_NEAR(facts.zero_share, 0.2, 1e-9);
  EXPECT_NEAR(facts.longest_zero_s, 2.0, 1e-9);
  EXPECT_EQ(facts.p50_rate, 1e6);
  EXPECT_EQ(facts.p95_rate, 2e6);
  EXPECT_EQ(facts.p50_delay_s, 0.01);
  EXPECT_EQ(facts.p95_delay_s, 0.2);
  EXPECT_EQ(FactsOf(lane, 6.5, 7.5).zero_share, 1.0);
}

}  // namespace
}  // namespace updraft::relay
