// The queue before the model: who comes next, and how many may wait.
#include "edge/agent/local_worker.h"

#include <gmock/gmock.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAre;
using Turn = StartLocal::Turn;

class Board {
 public:
  void Add(int who) {
    MutexLock lock(mu_);
    seen_.push_back(who);
    changed_.NotifyAll();
  }
  std::vector<int> WaitFor(size_t n) {
    const SteadyTime patience = SteadyNow() + absl::Seconds(60);
    MutexLock lock(mu_);
    while (seen_.size() < n && changed_.WaitUntil(lock, patience)) {
    }
    return seen_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<int> seen_ ABSL_GUARDED_BY(mu_);
};

// Notes when it begins and when it has ended; `gate` holds the worker in its beginning until the test opens it.
class Client final : public LocalClient {
 public:
  Client(int number, SteadyTime arrived, Board* began, Board* ended, Board* gate = nullptr)
      : number_(number), began_(began), ended_(ended), gate_(gate) {
    asked_.arrived = arrived;
    asked_.max_tokens = 1;
    asked_.prompt.tokens = {1, 2};
  }
  const Asked& asked() const override { return asked_; }
  void Post(Event event) override {
    if (std::holds_alternative<LocalBegan>(event)) {
      began_->Add(number_);
      if (gate_ != nullptr) gate_->WaitFor(1);
    }
    if (std::holds_alternative<LocalStopped>(event)) ended_->Add(number_);
  }

 private:
  const int number_;
  Board* const began_;
  Board* const ended_;
  Board* const gate_;
  Asked asked_;
};

class LocalWorkerTest : public AgentTest {
 protected:
  std::shared_ptr<Client> At(int second, Board* gate = nullptr) {
    return std::make_shared<Client>(second, SteadyTime::FromOrigin(absl::Seconds(second)), &began_, &ended_, gate);
  }

  const std::unique_ptr<LocalModel> model_ = LoadModel();
  Board began_, ended_, gate_;
};

// Numbers are times of arrival. 1 is being written; 3, 6 and 9 wait; the link dies under 2, 4, 5 and 7, in any order.
TEST_F(LocalWorkerTest, ThoseWhomUpstreamFailedComeFirstInOrderOfArrival) {
  LocalWorker worker(model_.get(), "edge", 10);
  for (const int second : {1, 3, 6, 9}) {
    ASSERT_TRUE(worker.Reserve());
    worker.Start(At(second, second == 1 ? &gate_ : nullptr), {}, Turn::kInOrder);
    if (second == 1) began_.WaitFor(1);
  }
  for (const int second : {5, 2, 7, 4}) worker.Start(At(second), {}, Turn::kFirst);
  EXPECT_EQ(worker.load().n_queued, 7);
  gate_.Add(0);
  EXPECT_THAT(ended_.WaitFor(8), ElementsAre(1, 2, 4, 5, 7, 3, 6, 9));
  EXPECT_THAT(began_.WaitFor(8), ElementsAre(1, 2, 4, 5, 7, 3, 6, 9));
}

TEST_F(LocalWorkerTest, PlacesAreAsManyAsMayWait) {
  constexpr int kPlaces = 3;
  LocalWorker worker(model_.get(), "edge", kPlaces);
  ASSERT_TRUE(worker.Reserve());
  worker.Start(At(1, &gate_), {}, Turn::kInOrder);
  began_.WaitFor(1);
  // Whoever asks at once, no more get one than there are.
  std::atomic<int> n_given = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) n_given += worker.Reserve() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_given, kPlaces);
  worker.Start(At(2), {}, Turn::kInOrder);  // takes one of them
  EXPECT_FALSE(worker.Reserve());
  worker.Release();
  EXPECT_TRUE(worker.Reserve());
  worker.Start(At(3), {}, Turn::kFirst);  // needs none, and takes the room of those to come
  worker.Release();
  EXPECT_FALSE(worker.Reserve());
  worker.Release();
  EXPECT_EQ(worker.load().n_queued, 2);
  gate_.Add(0);
  ended_.WaitFor(3);
}

}  // namespace
}  // namespace updraft::testing
