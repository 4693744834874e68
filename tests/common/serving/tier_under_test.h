// The same tests of the fronts run against every backend: each program that has one says how it is made.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/serving/backend.h"
#include "common/telemetry/metrics.h"

namespace updraft::testing {

class TierUnderTest {
 public:
  virtual ~TierUnderTest() = default;
  virtual Backend& backend() = 0;
  virtual Metrics& metrics() = 0;
  virtual void BeginDrain() = 0;
  // Ends what runs; the fronts are gone by then.
  virtual void Stop() = 0;
  virtual std::string tier() const = 0;
  // Of a model whose answer to "hello there" has at least 24 tokens.
  virtual std::string model_name() const = 0;
};

using MakeTier = std::unique_ptr<TierUnderTest> (*)();

}  // namespace updraft::testing
