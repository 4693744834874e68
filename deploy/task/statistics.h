// Intervals and order statistics, so that no figure is reported without its uncertainty.
#pragma once

#include <cstdint>
#include <span>

namespace updraft {

struct Interval {
  double low = 0.0, high = 0.0;
};

// Wilson's 95 % score interval of a proportion of `k` in `n`; [0, 1] when n is 0.
Interval WilsonInterval(int64_t k, int64_t n);

// Percentile bootstrap (Efron 1979) 95 % interval of the mean, 1,000 resamples drawn from `seed`; {0, 0} without
// values.
Interval BootstrapMeanInterval(std::span<const double> values, uint64_t seed);

double Mean(std::span<const double> values);  // 0 without values

// The q-quantile, q in [0, 1], linear between order statistics (Hyndman & Fan type 7); 0 without values.
double Quantile(std::span<const double> values, double q);

}  // namespace updraft
