// What README and the model cards say of deploy/models, asked of the real daemons: 600 held-out queries to the edge
// alone, the cloud alone, and both together.
//
// With n = 600 the standard error of an accuracy is at most 2 points. The limits are several of those away from what
// the cards measured, so that a model trained again passes, and a model, a kernel or a route that broke does not.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "deploy/demo/demo.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

std::string Shipped(const std::string& name) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  return std::string(source != nullptr ? source : ".") + "/deploy/models/" + name;
}

class ShippedModelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT("updraft-edge");
    SKIP_WITHOUT("updraft-cloud");
#if defined(UPDRAFT_SANITIZED)
    GTEST_SKIP() << "1800 answers take minutes under a sanitizer; the figures are those of build/release";
#endif
  }
};

void PrintFigures(const DemoReport& report) {
  const FamilySummary& all = report.summary.all();
  std::printf("edge %.1f %%, cloud %.1f %%, together %.1f %%, escalated %.1f %%, ECE %.3f, AUROC %.3f, ",
              100 * all.at(Pass::kEdge).accuracy(), 100 * all.at(Pass::kCloud).accuracy(),
              100 * all.at(Pass::kTogether).accuracy(), 100 * all.escalated_share(), report.summary.ece,
              report.summary.auroc);
  std::printf("ready after %.0f ms, resident %.1f MB\n", report.edge.ready_after_ms,
              static_cast<double>(report.edge.resident_bytes) / 1e6);
}

TEST_F(ShippedModelsTest, AnswerAsTheirCardsSay) {
  Daemon cloud("updraft-cloud", {"--model", Shipped("cockpit-full.gguf")});
  ASSERT_TRUE(cloud.ready()) << cloud.process().Output();
  Daemon edge("updraft-edge", {"--model", Shipped("cockpit-edge.gguf"), "--upstream", cloud.address()});
  ASSERT_TRUE(edge.ready()) << edge.process().Output();
  DemoOptions options;
  options.edge_address = edge.address();
  options.n_queries = 600;
  options.progress = false;
  const absl::StatusOr<DemoReport> report = RunDemo(options);
  ASSERT_TRUE(report.ok()) << report.status();
  PrintFigures(*report);

  const FamilySummary& all = report->summary.all();
  for (const Pass pass : {Pass::kEdge, Pass::kCloud, Pass::kTogether}) EXPECT_EQ(all.at(pass).errors, 0);
  const double full = all.at(Pass::kCloud).accuracy();
  EXPECT_GE(full, 0.92);
  EXPECT_GE(all.at(Pass::kEdge).accuracy(), 0.80);
  EXPECT_LE(all.at(Pass::kEdge).accuracy(), 0.95);
  EXPECT_GE(all.at(Pass::kTogether).accuracy(), full - 0.025);
  EXPECT_LE(all.escalated_share(), 0.58);
  EXPECT_LE(report->summary.ece, 0.08);
  EXPECT_GE(report->summary.auroc, 0.85);
#if defined(UPDRAFT_RELEASE)
  EXPECT_LE(report->edge.ready_after_ms, 500.0);
  EXPECT_LE(report->edge.resident_bytes, 64'000'000u);
#endif
}

}  // namespace
}  // namespace updraft::testing
