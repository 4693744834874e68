#include "common/routing/link.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace updraft {
namespace {

LinkSample Ping(double time_s, double rtt_s, double server_s = 0.0) {
  LinkSample sample;
  sample.time_s = time_s;
  sample.first_byte_s = rtt_s + server_s;
  sample.server_s = server_s;
  sample.bytes_up = 200;
  return sample;
}

TEST(LinkTest, NothingIsKnownAtFirst) {
  const LinkEstimate estimate = LinkEstimator().Estimate(100.0);
  EXPECT_FALSE(estimate.reachable);
  EXPECT_FALSE(estimate.measured);
  EXPECT_EQ(estimate.consecutive_failures, 0);
  for (const double unknown : {estimate.rtt_s, estimate.rtt_jitter_s, estimate.goodput_up_bytes_per_s,
                               estimate.goodput_down_bytes_per_s, estimate.age_s}) {
    EXPECT_TRUE(std::isnan(unknown)) << unknown;
  }
}

TEST(LinkTest, SmoothsAsRfc6298) {
  LinkEstimator link;
  link.OnSuccess(Ping(1.0, 0.100, 0.500));
  EXPECT_NEAR(link.Estimate(1.0).rtt_s, 0.100, 1e-12);  // the server's half second is not the link's
  EXPECT_NEAR(link.Estimate(1.0).rtt_jitter_s, 0.050, 1e-12);
  link.OnSuccess(Ping(2.0, 0.180));
  EXPECT_NEAR(link.Estimate(2.0).rtt_jitter_s, 0.75 * 0.050 + 0.25 * 0.080, 1e-12);
  EXPECT_NEAR(link.Estimate(2.0).rtt_s, 0.875 * 0.100 + 0.125 * 0.180, 1e-12);
  EXPECT_EQ(link.Estimate(5.5).samples, 2);
  EXPECT_NEAR(link.Estimate(5.5).age_s, 3.5, 1e-12);
}

TEST(LinkTest, ReachabilityFollowsTheLastAttempt) {
  LinkEstimator link;
  link.OnFailure(1.0);
  EXPECT_FALSE(link.Estimate(1.0).reachable);
  EXPECT_EQ(link.Estimate(1.0).consecutive_failures, 1);
  link.OnSuccess(Ping(2.0, 0.05));
  EXPECT_TRUE(link.Estimate(2.0).reachable);
  EXPECT_EQ(link.Estimate(2.0).consecutive_failures, 0);
  EXPECT_FALSE(link.Estimate(2.0 + kLinkValid_s + 1.0).reachable);
  link.OnFailure(3.0);
  link.OnFailure(4.0);
  EXPECT_FALSE(link.Estimate(4.0).reachable);
  EXPECT_EQ(link.Estimate(4.0).consecutive_failures, 2);
  EXPECT_TRUE(link.Estimate(4.0).measured);  // what was learned stays
}

TEST(LinkTest, GoodputComesFromBulkOnly) {
  LinkEstimator link;
  link.OnSuccess(Ping(1.0, 0.05));
  EXPECT_TRUE(std::isnan(link.Estimate(1.0).goodput_up_bytes_per_s));
  LinkSample upload = Ping(3.0, 0.05 + 1.0, 0.2);
  upload.bytes_up = 100000;
  link.OnSuccess(upload);
  EXPECT_NEAR(link.Estimate(3.0).goodput_up_bytes_per_s, 100000.0, 1.0);
  EXPECT_NEAR(link.Estimate(3.0).rtt_s, 0.05, 1e-12);  // and a long upload is no long round trip
  LinkSample download = Ping(4.0, 0.05);
  download.bytes_down = 500;
  download.transfer_down_s = 1.0;
  link.OnSuccess(download);
  EXPECT_TRUE(std::isnan(link.Estimate(4.0).goodput_down_bytes_per_s));  // a trickle is the server's pace
  download.bytes_down = 50000;
  download.transfer_down_s = 0.5;
  link.OnSuccess(download);
  EXPECT_NEAR(link.Estimate(4.0).goodput_down_bytes_per_s, 100000.0, 1.0);
  // An upload that takes no longer than a round trip says only that the link is fast: at least bytes / jitter.
  const double jitter_s = link.Estimate(4.0).rtt_jitter_s;
  LinkSample fast = Ping(5.0, 0.0501);
  fast.bytes_up = 100000;
  for (int i = 0; i < 20; ++i, fast.time_s += 2.0) link.OnSuccess(fast);
  EXPECT_NEAR(link.Estimate(fast.time_s).goodput_up_bytes_per_s, 100000.0 / jitter_s, 0.01 * 100000.0 / jitter_s);
}

TEST(LinkTest, ImpossibleSamplesChangeNothing) {
  LinkEstimator link;
  link.OnSuccess(Ping(1.0, 0.05));
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.0}) {
    link.OnSuccess(Ping(2.0, bad));
    LinkSample sample = Ping(2.0, 0.05);
    sample.server_s = bad;
    link.OnSuccess(sample);
  }
  EXPECT_EQ(link.Estimate(2.0).samples, 1);
  EXPECT_NEAR(link.Estimate(2.0).rtt_s, 0.05, 1e-12);
  // A server share above the whole is the two clocks' difference, not a negative round trip.
  link.OnSuccess(Ping(3.0, -0.01, 0.5));
  EXPECT_GE(link.Estimate(3.0).rtt_s, 0.0);
}

TEST(LinkTest, FollowsAStepOfTheRate) {
  LinkEstimator link;
  link.OnSuccess(Ping(0.0, 0.05));
  double time_s = 0.0;
  const auto upload = [&](double rate) {
    LinkSample sample = Ping(0.0, 0.05 + 50000.0 / rate);
    time_s += 2.0;
    sample.time_s = time_s;
    sample.bytes_up = 50000;
    link.OnSuccess(sample);
  };
  for (int i = 0; i < 10; ++i) upload(1e6);
  EXPECT_NEAR(link.Estimate(time_s).goodput_up_bytes_per_s, 1e6, 1e3);
  for (int i = 0; i < 6; ++i) upload(5e4);
  EXPECT_NEAR(link.Estimate(time_s).goodput_up_bytes_per_s, 5e4, 1e4);
}

// ---- Recorded links ----

std::string DataFolder() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  return (source != nullptr ? std::string(source) : std::string(".")) + "/../shared/data";
}

std::vector<std::string> Split(const std::string& line) {
  std::vector<std::string> fields;
  std::stringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
  return fields;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

TEST(RecordedLinkTest, RoundTripsOfAVehicleOn5G) {
  const std::string folder = DataFolder() + "/rtt_5g_cicv5g_vehicle/dev";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "recorded round trips are not at " << folder;
  std::vector<double> ours, last, mean;  // |predicted - next| relative to the next
  int64_t n = 0, covered = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path());
    std::string line, run;
    std::getline(file, line);
    LinkEstimator link;
    double previous = 0.0, sum = 0.0, count = 0.0;
    while (std::getline(file, line)) {
      const auto fields = Split(line);
      if (fields.size() < 3) continue;
      if (fields[0] != run) {
        run = fields[0];
        link = LinkEstimator();
        count = sum = 0.0;
      }
      const double time_s = std::atof(fields[1].c_str()) / 1e3, rtt_s = std::atof(fields[2].c_str()) / 1e3;
      if (rtt_s <= 0.0) continue;
      if (count >= 8) {
        const LinkEstimate estimate = link.Estimate(time_s);
        ours.push_back(std::abs(estimate.rtt_s - rtt_s) / rtt_s);
        last.push_back(std::abs(previous - rtt_s) / rtt_s);
        mean.push_back(std::abs(sum / count - rtt_s) / rtt_s);
        ++n;
        covered += rtt_s <= estimate.rtt_s + 4.0 * estimate.rtt_jitter_s ? 1 : 0;
      }
      link.OnSuccess(Ping(time_s, rtt_s));
      previous = rtt_s;
      sum += rtt_s;
      count += 1.0;
    }
  }
  ASSERT_GT(n, 50000);
  std::cout << "next round trip, median relative error over " << n << ": smoothed " << Median(ours) << ", last "
            << Median(last) << ", mean of the run " << Median(mean) << "; within four deviations "
            << covered / static_cast<double>(n) << "\n";
  EXPECT_LT(Median(ours), 0.20);
  EXPECT_LT(Median(ours), 1.02 * Median(last));
  EXPECT_LT(Median(ours), 1.02 * Median(mean));
  EXPECT_GT(covered / static_cast<double>(n), 0.95);
}

// One recorded capacity: bytes per second over time, constant in steps.
struct Capacity {
  std::vector<double> start_s, bytes_per_s;
  double end_s = 0.0;

  // When a transfer of `bytes` that starts at `from_s` ends; beyond end_s when it does not.
  double Finish(double from_s, double bytes) const {
    size_t i = std::upper_bound(start_s.begin(), start_s.end(), from_s) - start_s.begin();
    i = i > 0 ? i - 1 : 0;
    for (double now = from_s; i < start_s.size(); ++i) {
      const double next = i + 1 < start_s.size() ? start_s[i + 1] : end_s;
      const double can = (next - now) * bytes_per_s[i];
      if (can >= bytes && bytes_per_s[i] > 0.0) return now + bytes / bytes_per_s[i];
      bytes -= std::max(can, 0.0);
      now = std::max(now, next);
    }
    return std::numeric_limits<double>::infinity();
  }
};

void AddStep(Capacity& capacity, double start_s, double bytes_per_s, double step_s) {
  capacity.start_s.push_back(start_s);
  capacity.bytes_per_s.push_back(bytes_per_s);
  capacity.end_s = start_s + step_s;
}

std::map<std::string, Capacity> RecordedCapacities() {
  std::map<std::string, Capacity> traces;
  const std::string lte = DataFolder() + "/bw_mahimahi_lte/dev", g3 = DataFolder() + "/bw_hsdpa_norway_oboe/dev",
                    g5 = DataFolder() + "/bw_5g_ireland_driving/dev";
  for (const auto& folder : {lte, g3, g5}) {
    if (!std::filesystem::exists(folder)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (!entry.is_regular_file() || entry.path().extension() != ".csv") continue;
      if (folder == g5 && name.rfind("Download", 0) != 0) continue;  // the others are limited by the application
      std::ifstream file(entry.path());
      std::string line;
      std::getline(file, line);
      while (std::getline(file, line)) {
        const auto f = Split(line);
        if (folder == lte && f.size() >= 2) {
          AddStep(traces[name], std::atof(f[0].c_str()) / 1e3, std::atof(f[1].c_str()) * 1500 / 0.1, 0.1);
        } else if (folder == g3 && f.size() >= 3) {
          AddStep(traces[f[0]], std::atof(f[1].c_str()), std::atof(f[2].c_str()) * 1e6 / 8, 1.0);
        } else if (folder == g5 && f.size() >= 9) {
          AddStep(traces[name], std::atof(f[0].c_str()), std::atof(f[7].c_str()) * 1e3 / 8, 1.0);
        }
      }
    }
  }
  return traces;
}

TEST(RecordedLinkTest, GoodputPredictsTheNextTransfer) {
  const auto traces = RecordedCapacities();
  if (traces.empty()) GTEST_SKIP() << "recorded link capacities (bw_*) are not in " << DataFolder();
  constexpr double kBytes = 60000.0, kPause_s = 2.0, kRtt_s = 0.05;
  std::vector<double> ours, last, mean;  // |log2(predicted / true transfer time)|: 1 is a factor of two
  for (const auto& [name, capacity] : traces) {
    LinkEstimator link;
    link.OnSuccess(Ping(0.0, kRtt_s));
    double previous = 0.0, sum = 0.0, count = 0.0;
    for (double now = capacity.start_s.front(); now < capacity.end_s;) {
      link.OnSuccess(Ping(now, kRtt_s));
      const double end = capacity.Finish(now, kBytes);
      if (!std::isfinite(end)) break;
      const double rate = kBytes / (end - now);
      if (count >= 3) {
        ours.push_back(std::abs(std::log2(link.Estimate(now).goodput_up_bytes_per_s / rate)));
        last.push_back(std::abs(std::log2(previous / rate)));
        mean.push_back(std::abs(std::log2(sum / count / rate)));
      }
      LinkSample sample = Ping(end, kRtt_s + (end - now));
      sample.bytes_up = static_cast<uint64_t>(kBytes);
      link.OnSuccess(sample);
      previous = rate;
      sum += rate;
      count += 1.0;
      now = end + kPause_s;
    }
  }
  ASSERT_GT(ours.size(), 2000u);
  const auto average = [](const std::vector<double>& v) {
    double sum = 0.0;
    for (const double x : v) sum += x;
    return sum / static_cast<double>(v.size());
  };
  std::cout << "next transfer time, |log2 error| over " << ours.size() << " transfers of " << traces.size()
            << " links: median smoothed " << Median(ours) << ", last " << Median(last) << ", mean of the run "
            << Median(mean) << "; mean smoothed " << average(ours) << ", last " << average(last) << ", mean of the run "
            << average(mean) << "\n";
  EXPECT_LT(Median(ours), 0.5);  // half of all predictions within a factor of 1.41
  EXPECT_LT(average(ours), 1.02 * average(last));
  EXPECT_LT(average(ours), 0.9 * average(mean));
}

}  // namespace
}  // namespace updraft
