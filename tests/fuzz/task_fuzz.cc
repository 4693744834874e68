// Any bytes as an answer of the cockpit ('A'), a generated example ('E'), a task's file ('T'), a training recipe ('R'),
// one of an adapter ('B'), a line of a written sheet ('W') and what an OpenAI server streams ('S'): refused with words,
// or within what they promise.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "common/cockpit/answer.h"
#include "deploy/bench/openai_stream.h"
#include "deploy/task/task.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/adapter/sheets.h"
#include "deploy/train/cockpit/generator.h"
#include "deploy/train/recipe.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft;  // a program of its own

void Require(bool holds) {
  if (!holds) std::abort();
}

void CheckAnswer(const std::string& text) {
  const auto settings = cockpit::CanonicalSettings(text);
  Require(cockpit::ExactMatch(text, text) == settings.ok());
  if (settings.ok()) {
    // The canonical text is an answer that means the same.
    Require(cockpit::ExactMatch(text, *settings));
    Require(*cockpit::CanonicalSettings(*settings) == *settings);
  }
  const absl::Status legal = cockpit::CheckLegal(text);
  Require(legal.ok() || !legal.message().empty());
}

void CheckExample(const std::string& text) {
  const auto example = cockpit::FromJsonLine(text);
  if (!example.ok()) return Require(!example.status().message().empty());
  Require(!example->turns.empty());
  const std::string line = cockpit::ToJsonLine(*example);
  const auto again = cockpit::FromJsonLine(line);
  Require(again.ok() && cockpit::ToJsonLine(*again) == line);
}

void CheckTask(const std::string& text) {
  const int fd = memfd_create("task_fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const auto prompts = ReadPrompts(path), items = ReadTask(path);
  close(fd);
  Require(prompts.ok() ? !prompts->empty() : !prompts.status().message().empty());
  if (!items.ok()) return Require(!items.status().message().empty());
  Require(!items->empty());
  std::vector<std::string> answers;
  for (const TaskItem& item : *items) {
    Require(!item.messages.empty() && (!item.cockpit || IsCorrect(item, item.expected)));
    answers.push_back(item.expected);
  }
  const TaskReport report = ScoreAnswers(*items, answers);
  Require(report.exact_match == 1.0 && !ToJson(report).empty() && !ToText(report).empty());
}

void CheckRecipe(const std::string& text) {
  const auto recipe = train::ParseRecipe(text);
  if (!recipe.ok()) return Require(!recipe.status().message().empty());
  Require(!recipe->steps.empty() && recipe->model.layers > 0 && recipe->model.width % recipe->model.heads == 0);
  Require(recipe->model.exits.size() == recipe->exit_thresholds.size());
  for (const int exit : recipe->model.exits) Require(exit >= 1 && exit < recipe->model.layers);
  for (const train::TrainStep& step : recipe->steps) Require(step.tokens >= 1 && step.batch_tokens >= 64);
}

void CheckAdapterRecipe(const std::string& text) {
  const auto recipe = train::ParseAdapterRecipe(text);
  if (!recipe.ok()) return Require(!recipe.status().message().empty());
  Require(train::IsAdapterRecipe(text) && recipe->adapter.rank >= 1 && recipe->adapter.scale() > 0);
  Require((recipe->updates > 0) != (recipe->minutes > 0) && !recipe->adapter.targets.empty());
}

void CheckWritten(const std::string& text) {
  cockpit::Example example;
  std::string kind;
  const absl::Status status = train::ReadSheetLine(text, &example, &kind);
  if (!status.ok()) return Require(!status.message().empty());
  Require(!example.turns.empty());
  Require(example.answer.empty() || cockpit::CheckLegal(example.answer).ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'A':
      CheckAnswer(text);
      break;
    case 'E':
      CheckExample(text);
      break;
    case 'T':
      CheckTask(text);
      break;
    case 'R':
      CheckRecipe(text);
      break;
    case 'B':
      CheckAdapterRecipe(text);
      break;
    case 'W':
      CheckWritten(text);
      break;
    default:
      CarriesText(text);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  std::vector<std::string> seeds = {
      R"(A{"set":{"Vehicle.Cabin.HVAC.Station.Row1.Driver.FanSpeed":40.0,"x":-1e300},"call":{"name":"phone","to":"mom"}})",
      R"(A{"result":{"x":28.80},"refuse":false,"say":"\ud83d\ude00"})",
      "A{\"set\":{\"Vehicle.Cabin.Light.IsDomeOn\":" + std::string(400000, '[') + std::string(400000, ']') + "}}",
      "T{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"answer\":\"x\"}\n\n{\"prompt\":\"q\",\"answer\":\"y "
      "z\","
      "\"family\":\"slot\",\"id\":\"1\",\"language\":\"en\"}",
      R"(R{"name":"r","seed":1,"vocabulary":512,"tokenizer_examples":100,"exit_thresholds":[0.9],"model":{"layers":4,)"
      R"("width":64,"heads":4,"kv_heads":2,"feed_forward":128,"context":64,"rope_base":10000,"exits":[2]},"steps":)"
      R"([{"name":"a","tokens":1000,"batch_tokens":64,"learning_rate":0.01,"mix":{"slot":1,"scope":2},"matrices":"q4_0"}]})",
      R"(B{"name":"b","base":"b.gguf","adapter":{"rank":8,"targets":["attn_q"]},"updates":10,"sheets":{"en7":2},)"
      R"("held_out":["en8"],"generated":{"share":0.5,"english":1,"mix":{"slot":1}}})",
      R"(W{"kind":"call","messages":[{"role":"user","content":"x"}],"answer":{"call":{"name":"phone","contact":"Mo"},)"
      R"("partly":true}})",
      R"(S{"choices":[{"text":"hello","index":0}]})",
      R"(S{"choices":{"text":1}})"};
  cockpit::Generator generator(7, cockpit::Split::kTest);
  for (int i = 0; i < 6; ++i) {
    const cockpit::Example example = generator.Next();
    seeds.push_back("E" + cockpit::ToJsonLine(example));
    seeds.push_back("T" + cockpit::ToJsonLine(example));
    seeds.push_back("A" + example.answer);
  }
  for (const std::string& seed : seeds) add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
}
