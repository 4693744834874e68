// The queue before the model and the turns at it: who comes next, how many may wait, who gives way.
#include "edge/agent/local_worker.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "common/serving/shapes.h"
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

// Written to its end, one after the other. Numbers are times of arrival. 1 is being written; 3, 6 and 9 wait; the link
// dies under 2, 4, 5 and 7, in any order.
TEST_F(LocalWorkerTest, ThoseWhomUpstreamFailedComeFirstInOrderOfArrival) {
  LocalWorker worker(model_.get(), {.tier = "edge", .max_queued = 10, .n_at_once = 1});
  for (const int second : {1, 3, 6, 9}) {
    ASSERT_TRUE(worker.Reserve());
    worker.Start(At(second, second == 1 ? &gate_ : nullptr), {}, Turn::kInOrder);
    if (second == 1) began_.WaitFor(1);
  }
  for (const int second : {5, 2, 7, 4}) worker.Start(At(second), {}, Turn::kFirst);
  EXPECT_EQ(worker.load().n_queued, 7);
  EXPECT_EQ(worker.load().n_running, 1);
  gate_.Add(0);
  EXPECT_THAT(ended_.WaitFor(8), ElementsAre(1, 2, 4, 5, 7, 3, 6, 9));
  EXPECT_THAT(began_.WaitFor(8), ElementsAre(1, 2, 4, 5, 7, 3, 6, 9));
}

TEST_F(LocalWorkerTest, PlacesAreAsManyAsMayWait) {
  constexpr int kPlaces = 3;
  LocalWorker worker(model_.get(), {.tier = "edge", .max_queued = kPlaces, .n_at_once = 1});
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

// ---- Turns
// ------------------------------------------------------------------------------------------------------------

struct Written {
  std::string text;
  std::vector<int32_t> tokens;
  absl::Status status;
  int n_stopped = 0;
};

// What everybody did, in order: who, and whether it ended.
struct Deed {
  int who = 0;
  bool end = false;
};

class Record {
 public:
  void Add(Deed deed) {
    MutexLock lock(mu_);
    deeds_.push_back(deed);
    if (deed.end) ++n_ended_;
    changed_.NotifyAll();
  }
  std::vector<Deed> WaitForEnds(int n) {
    const SteadyTime patience = SteadyNow() + absl::Seconds(120);
    MutexLock lock(mu_);
    while (n_ended_ < n && changed_.WaitUntil(lock, patience)) {
    }
    EXPECT_EQ(n_ended_, n);
    return deeds_;
  }
  int n_of(int who) {
    MutexLock lock(mu_);
    return static_cast<int>(std::count_if(deeds_.begin(), deeds_.end(), [who](const Deed& d) { return d.who == who; }));
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<Deed> deeds_ ABSL_GUARDED_BY(mu_);
  int n_ended_ ABSL_GUARDED_BY(mu_) = 0;
};

// Keeps what the model writes. At its n-th step it does what the test says.
class Writer final : public LocalClient {
 public:
  Writer(int number, int n_prompt, int max_tokens, Record* record, float temperature = 0.0f)
      : number_(number), record_(record) {
    asked_.arrived = SteadyTime::FromOrigin(absl::Seconds(number));
    asked_.max_tokens = max_tokens;
    for (int i = 0; i < n_prompt; ++i) asked_.prompt.tokens.push_back((number * 31 + i * 7) % 500 + 1);
    asked_.request.mutable_sampling()->set_temperature(temperature);
    asked_.request.mutable_sampling()->set_seed(static_cast<uint64_t>(number));
  }
  const Asked& asked() const override { return asked_; }
  Asked& asked() { return asked_; }
  void Post(Event event) override {
    if (std::holds_alternative<LocalBegan>(event)) ++n_began_;
    if (const auto* step = std::get_if<LocalStep>(&event)) {
      written_.text += step->chunk.text();
      for (const int32_t token : step->chunk.tokens()) written_.tokens.push_back(token);
      record_->Add({number_, false});
      if (at_step_ && static_cast<int>(written_.tokens.size()) == n_at_step_) at_step_();
    }
    if (const auto* stopped = std::get_if<LocalStopped>(&event)) {
      written_.status = stopped->status;
      EXPECT_EQ(++written_.n_stopped, 1);
      record_->Add({number_, true});
    }
  }
  void AtStep(int n, std::function<void()> fn) {
    n_at_step_ = n;
    at_step_ = std::move(fn);
  }
  const Written& written() const { return written_; }  // after its end
  int n_began() const { return n_began_; }

 private:
  const int number_;
  Record* const record_;
  int n_at_step_ = -1;
  std::function<void()> at_step_;
  Written written_;
  std::atomic<int> n_began_ = 0;
  Asked asked_;
};

size_t EndOf(const std::vector<Deed>& deeds, int who) {
  for (size_t i = 0; i < deeds.size(); ++i) {
    if (deeds[i].who == who && deeds[i].end) return i;
  }
  return deeds.size();
}

class LocalTurnsTest : public AgentTest {
 protected:
  void Start(LocalWorker& worker, const std::shared_ptr<Writer>& writer, Turn turn = Turn::kInOrder) {
    if (turn == Turn::kInOrder) {
      ASSERT_TRUE(worker.Reserve());
    }
    worker.Start(writer, {}, turn);
  }
  // What the writer gets when it is alone.
  Written Alone(const LocalModel* model, const Writer& like) {
    Record record;
    auto writer = std::make_shared<Writer>(0, 1, 1, &record);
    writer->asked() = like.asked();
    LocalWorker worker(model, {.tier = "edge"});
    Start(worker, writer);
    record.WaitForEnds(1);
    return writer->written();
  }
};

TEST_F(LocalTurnsTest, AShortAnswerDoesNotWaitForALongOne) {
  const auto model = LoadModel();
  Record record;
  LocalWorker worker(model.get(), {.tier = "edge"});
  auto long_one = std::make_shared<Writer>(1, 10, 250, &record);
  auto short_one = std::make_shared<Writer>(2, 10, 5, &record);
  long_one->AtStep(5, [&] { Start(worker, short_one); });
  Start(worker, long_one);
  const std::vector<Deed> deeds = record.WaitForEnds(2);
  ASSERT_EQ(long_one->written().tokens.size(), 250u) << "the model ended the long answer early";
  EXPECT_LT(EndOf(deeds, 2), EndOf(deeds, 1));
  // As much of the model's time each: what the short one took the long one had as well, give or take what tokens
  // differ.
  const auto before = deeds.begin() + static_cast<std::ptrdiff_t>(EndOf(deeds, 2));
  const auto n_long = std::count_if(deeds.begin(), before, [](const Deed& d) { return d.who == 1; });
  EXPECT_LT(n_long, 125);
}

// Neither does one that is still being read keep others from their turns.
TEST_F(LocalTurnsTest, ALongPromptTakesTurns) {
  const auto model = LoadModel(/*kv_tokens=*/4096);
  Record record;
  LocalWorker worker(model.get(), {.tier = "edge"});
  std::vector<std::shared_ptr<Writer>> long_ones;
  auto first = std::make_shared<Writer>(1, 5, 200, &record);
  auto last = std::make_shared<Writer>(9, 5, 2, &record);
  first->AtStep(2, [&] {
    for (int i = 2; i < 8; ++i) {
      long_ones.push_back(std::make_shared<Writer>(i, 500, 4, &record));
      Start(worker, long_ones.back());
    }
    Start(worker, last);
  });
  Start(worker, first);
  const std::vector<Deed> deeds = record.WaitForEnds(8);
  int n_before = 0;
  for (int i = 2; i < 8; ++i) n_before += EndOf(deeds, i) < EndOf(deeds, 9) ? 1 : 0;
  EXPECT_EQ(n_before, 0) << "a short answer waited for long prompts";
}

// More is asked for than the pool holds: somebody gives way and reads everything anew, and nobody's answer is another.
class LocalRoomTest : public LocalTurnsTest, public ::testing::WithParamInterface<ExitMode> {};

TEST_P(LocalRoomTest, AnswersAreTheSameWhoeverGivesWay) {
  const auto model = LoadModel(/*kv_tokens=*/192, GetParam());
  std::vector<Written> alone;
  Record ignored, record;
  std::vector<std::shared_ptr<Writer>> writers;
  for (int i = 0; i < 6; ++i) {
    writers.push_back(std::make_shared<Writer>(i, 20 + 10 * i, 90, &record, i % 2 == 0 ? 0.0f : 0.8f));
    alone.push_back(Alone(model.get(), *writers.back()));
  }
  LocalWorker worker(model.get(), {.tier = "edge"});
  for (const auto& writer : writers) Start(worker, writer);
  record.WaitForEnds(6);
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(writers[i]->written().status.ok()) << writers[i]->written().status;
    EXPECT_EQ(writers[i]->written().tokens, alone[i].tokens) << i;
    EXPECT_EQ(writers[i]->written().text, alone[i].text) << i;
    EXPECT_EQ(writers[i]->n_began(), 1);
  }
  worker.Shutdown();
  EXPECT_EQ(model->pool()->n_free(), model->pool()->n_blocks());
}

// The grammar is followed on from where the answer stood, also when its tokens are read anew.
TEST_P(LocalRoomTest, AnswersHeldToAShapeKeepIt) {
  const auto model = LoadModel(/*kv_tokens=*/192, GetParam());
  v1::Shape shape;
  shape.set_regex("([a-c]{3}-)+");
  const Shapes shapes(model->served().tokenizer(), model->served().stop_tokens(),
                      model->served().model().config().n_vocab);
  const auto masks = shapes.Of(shape);
  ASSERT_TRUE(masks.ok()) << masks.status();
  std::vector<Written> alone;
  Record record;
  std::vector<std::shared_ptr<Writer>> writers;
  for (int i = 0; i < 6; ++i) {
    writers.push_back(std::make_shared<Writer>(i, 20 + 10 * i, 90, &record, i % 2 == 0 ? 0.0f : 1.2f));
    writers.back()->asked().prompt.shape = *masks;
    alone.push_back(Alone(model.get(), *writers.back()));
  }
  LocalWorker worker(model.get(), {.tier = "edge"});
  for (const auto& writer : writers) Start(worker, writer);
  record.WaitForEnds(6);
  for (int i = 0; i < 6; ++i) {
    const std::string& text = writers[i]->written().text;
    EXPECT_TRUE(writers[i]->written().status.ok()) << writers[i]->written().status;
    EXPECT_EQ(writers[i]->written().tokens, alone[i].tokens) << i;
    EXPECT_TRUE(std::regex_match(text, std::regex("([a-c]{3}-)*[a-c]{0,3}-?"))) << text;
    EXPECT_GE(text.size(), 4u);
  }
}

INSTANTIATE_TEST_SUITE_P(ExitModes, LocalRoomTest, ::testing::Values(ExitMode::kOff, ExitMode::kLossless));

// 2 needs nearly all the pool and waits while 1 writes; 3 finds room and passes. When 1 has ended 2 has its room,
// though 3 would have gone on for long.
TEST_F(LocalTurnsTest, WhoeverPassedGivesWay) {
  const auto model = LoadModel(/*kv_tokens=*/256);
  Record record;
  LocalWorker worker(model.get(), {.tier = "edge"});
  auto first = std::make_shared<Writer>(1, 10, 60, &record);
  auto large = std::make_shared<Writer>(2, 180, 40, &record);
  auto small = std::make_shared<Writer>(3, 10, 200, &record);
  first->AtStep(1, [&] {
    Start(worker, large);
    Start(worker, small);
  });
  Start(worker, first);
  const std::vector<Deed> deeds = record.WaitForEnds(3);
  const auto first_of = [&](int who) {
    return std::find_if(deeds.begin(), deeds.end(), [who](const Deed& d) { return d.who == who; }) - deeds.begin();
  };
  ASSERT_EQ(small->written().tokens.size(), 200u);
  EXPECT_LT(first_of(3), first_of(2)) << "3 had room and did not pass";
  EXPECT_LT(EndOf(deeds, 2), EndOf(deeds, 3)) << "2 waited for whoever passed it";
}

TEST_F(LocalTurnsTest, ThoseThatWaitKnowTheirPlace) {
  const auto model = LoadModel();
  Record record;
  LocalWorker worker(model.get(), {.tier = "edge", .n_at_once = 2});
  std::vector<std::shared_ptr<Writer>> writers;
  for (int i = 1; i <= 5; ++i) writers.push_back(std::make_shared<Writer>(i, 5, 100, &record));
  std::vector<std::optional<int>> places;
  writers[0]->AtStep(1, [&] {
    for (int i = 1; i < 5; ++i) Start(worker, writers[i]);
  });
  writers[1]->AtStep(1, [&] {
    for (const auto& writer : writers) places.push_back(worker.QueuePlace(writer.get()));
  });
  Start(worker, writers[0]);
  record.WaitForEnds(5);
  EXPECT_THAT(places, ElementsAre(std::nullopt, std::nullopt, 0, 1, 2));
  EXPECT_EQ(worker.QueuePlace(writers[4].get()), std::nullopt);
}

// Anybody may be stopped at any time, waiting, writing or while its room was given back, and hears the end once.
TEST_F(LocalTurnsTest, WhoeverIsStoppedEndsOnce) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto model = LoadModel(/*kv_tokens=*/128 + 64 * static_cast<int>(seed % 3));
    Record record;
    LocalWorker worker(model.get(), {.tier = "edge", .max_queued = 1000, .n_at_once = 1 + static_cast<int>(seed)});
    constexpr int kWriters = 40;
    std::vector<std::shared_ptr<Writer>> writers;
    for (int i = 0; i < kWriters; ++i) {
      writers.push_back(std::make_shared<Writer>(i, 1 + random() % 100, 1 + random() % 60, &record));
      if (random() % 4 == 0) writers.back()->asked().deadline = SteadyNow() + absl::Milliseconds(random() % 50);
    }
    for (int i = 0; i < kWriters; ++i) {
      if (random() % 3 == 0) {
        const int other = static_cast<int>(random() % kWriters);
        writers[i]->AtStep(1 + static_cast<int>(random() % 20), [&, other] { worker.Stop(writers[other].get()); });
      }
    }
    std::thread outside([&] {
      for (int i = 0; i < 20; ++i) {
        absl::SleepFor(absl::Microseconds(500));
        worker.Stop(writers[i * 2].get());
        worker.load();
      }
    });
    for (const auto& writer : writers) Start(worker, writer, random() % 5 == 0 ? Turn::kFirst : Turn::kInOrder);
    outside.join();
    record.WaitForEnds(kWriters);
    worker.Shutdown();
    for (const auto& writer : writers) EXPECT_TRUE(writer->written().status.ok()) << writer->written().status;
    EXPECT_EQ(model->pool()->n_free(), model->pool()->n_blocks());
    EXPECT_EQ(worker.load().n_running_tokens, 0);
    EXPECT_EQ(worker.load().n_queued_tokens, 0);
  }
}

}  // namespace
}  // namespace updraft::testing
