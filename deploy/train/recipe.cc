#include "deploy/train/recipe.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files/read_file.h"
#include "deploy/train/recipe_fields.h"

namespace updraft::train {
namespace {

using nlohmann::json;

constexpr size_t kMaxRecipeBytes = size_t{1} << 20;

void ReadType(const char* key, RecipeFields* fields, WeightType* out) {
  std::string name;
  fields->Text(key, &name);
  if (name.empty()) return;
  for (auto [known, type] : {std::pair{"f32", WeightType::kF32},
                             {"f16", WeightType::kF16},
                             {"q8_0", WeightType::kQ8_0},
                             {"q4_0", WeightType::kQ4_0}}) {
    if (name == known) {
      *out = type;
      return;
    }
  }
  fields->Fail(key, absl::StrCat("expected f32, f16, q8_0 or q4_0, found '", name, "'"));
}

absl::Status ParseModel(const json& object, ModelShape* shape) {
  RecipeFields fields(object, "model");
  fields.Number("layers", 1, 200, &shape->layers);
  fields.Number("width", 32, 16384, &shape->width);
  fields.Number("heads", 1, 256, &shape->heads);
  fields.Number("kv_heads", 1, 256, &shape->kv_heads);
  fields.Number("feed_forward", 32, 65536, &shape->feed_forward);
  fields.Number("context", 64, 1 << 20, &shape->context);
  fields.Number("rope_base", 1, 1e9, &shape->rope_base);
  fields.Numbers("exits", 1, 199, &shape->exits);
  if (absl::Status status = fields.Finish(); !status.ok()) return status;
  if (shape->layers == 0 || shape->width == 0 || shape->heads == 0 || shape->kv_heads == 0 ||
      shape->feed_forward == 0) {
    return absl::InvalidArgumentError("recipe: model: expected layers, width, heads, kv_heads and feed_forward");
  }
  if (shape->width % shape->heads != 0 || shape->head() % 2 != 0 || shape->heads % shape->kv_heads != 0) {
    return absl::InvalidArgumentError(
        "recipe: model: expected heads to divide width into an even size, and kv_heads to divide heads");
  }
  if (shape->width % 32 != 0 || shape->feed_forward % 32 != 0) {
    return absl::InvalidArgumentError("recipe: model: expected width and feed_forward to be multiples of 32");
  }
  for (int exit : shape->exits) {
    if (exit >= shape->layers)
      return absl::InvalidArgumentError("recipe: model.exits: expected exits before the last layer");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseMix(const json& object, const std::string& where, cockpit::FamilyMix* mix) {
  RecipeFields fields(object, where);
  int total = 0;
  for (int i = 0; i < cockpit::kFamilies; ++i) {
    const std::string name(cockpit::FamilyName(static_cast<cockpit::Family>(i)));
    (*mix)[i] = 0;
    fields.Number(name.c_str(), 0, 1000, &(*mix)[i]);
    total += (*mix)[i];
  }
  if (total == 0) fields.Fail(absl::StrCat(where, ": expected a share above 0 for at least one family"));
  return fields.Finish();
}

absl::Status ParseVariation(const json& object, const std::string& where, cockpit::VariationShares* shares) {
  RecipeFields fields(object, where);
  fields.Number("names", 0, 1, &shares->names);
  fields.Number("numbers", 0, 1, &shares->numbers);
  fields.Number("joined", 0, 1, &shares->joined);
  fields.Number("typos", 0, 1, &shares->typos);
  return fields.Finish();
}

void ParseSheets(RecipeFields* fields, std::vector<std::pair<std::string, int>>* sheets) {
  const json* object = fields->Find("sheets");
  if (object == nullptr) return;
  if (!object->is_object()) return fields->Fail("sheets", "expected an object: name of a sheet -> how often");
  for (const auto& [name, times] : object->items()) {
    if (!times.is_number_integer() || times.get<int64_t>() < 1 || times.get<int64_t>() > 1000) {
      return fields->Fail("sheets", absl::StrCat("'", name, "': expected a whole number from 1 to 1000"));
    }
    sheets->emplace_back(name, times.get<int>());
  }
}

namespace {

absl::Status ParseStep(const json& object, TrainStep* step) {
  RecipeFields fields(object, "steps");
  fields.Text("name", &step->name);
  fields.Number("tokens", 1, 1e13, &step->tokens);
  fields.Number("warmup_tokens", 0, 1e13, &step->warmup_tokens);
  fields.Number("decay_tokens", 0, 1e13, &step->decay_tokens);
  fields.Number("batch_tokens", 64, 1 << 24, &step->batch_tokens);
  fields.Number("batches", 1, 1 << 16, &step->batches);
  fields.Number("learning_rate", 0, 1, &step->learning_rate);
  fields.Number("weight_decay", 0, 1, &step->weight_decay);
  fields.Number("clip", 0, 1e6, &step->clip);
  fields.Number("distill", 0, 1, &step->distill);
  fields.Number("temperature", 0.1, 100, &step->temperature);
  fields.Number("exit_weight", 0, 10, &step->exit_weight);
  fields.Number("written", 0, 1, &step->written);
  ReadType("matrices", &fields, &step->matrices);
  ReadType("embedding", &fields, &step->embedding);
  if (const json* mix = fields.Find("mix")) fields.Absorb(ParseMix(*mix, "steps.mix", &step->mix));
  if (const json* vary = fields.Find("vary")) fields.Absorb(ParseVariation(*vary, "steps.vary", &step->vary));
  if (absl::Status status = fields.Finish(); !status.ok()) return status;
  if (step->tokens == 0 || step->learning_rate == 0) {
    return absl::InvalidArgumentError("recipe: steps: expected tokens and learning_rate in every step");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Recipe> ParseRecipe(std::string_view text) {
  const json parsed = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded())
    return absl::InvalidArgumentError("recipe: expected one JSON object; check commas and quotes");
  Recipe recipe;
  recipe.text = std::string(text);
  RecipeFields fields(parsed, "recipe");
  fields.Text("name", &recipe.name);
  fields.Number("seed", 0, 1e15, &recipe.seed);
  fields.Number("vocabulary", 0, 1 << 20, &recipe.vocabulary);
  fields.Number("tokenizer_examples", 0, 1e8, &recipe.tokenizer_examples);
  fields.Text("teacher", &recipe.teacher);
  fields.Text("init_from", &recipe.init_from);
  fields.Number("keep_start", 0, 1, &recipe.keep_start);
  fields.Text("keep_from", &recipe.keep_from);
  fields.Text("sheet_folder", &recipe.sheet_folder);
  ParseSheets(&fields, &recipe.sheets);
  ReadType("file_matrices", &fields, &recipe.file_matrices);
  ReadType("file_embedding", &fields, &recipe.file_embedding);
  fields.Numbers("exit_thresholds", 0, 1.01, &recipe.exit_thresholds);
  fields.Number("check_examples", 0, 1e6, &recipe.check_examples);
  fields.Number("check_seconds", 1, 1e6, &recipe.check_seconds);
  fields.Number("checkpoint_seconds", 1, 1e6, &recipe.checkpoint_seconds);
  if (const json* model = fields.Find("model")) {
    fields.Absorb(ParseModel(*model, &recipe.model));
  } else {
    fields.Fail("recipe: expected a model");
  }
  if (const json* steps = fields.Find("steps"); steps != nullptr && steps->is_array() && !steps->empty()) {
    for (const json& step : *steps) fields.Absorb(ParseStep(step, &recipe.steps.emplace_back()));
  } else {
    fields.Fail("recipe: expected a list of steps");
  }
  if (absl::Status status = fields.Finish(); !status.ok()) return status;
  if (recipe.exit_thresholds.size() != recipe.model.exits.size()) {
    return absl::InvalidArgumentError("recipe: exit_thresholds: expected one per exit of the model");
  }
  if (!recipe.keep_from.empty() && recipe.keep_start == 0) {
    return absl::InvalidArgumentError("recipe: keep_from: keep_start says how much of it is kept, and is 0");
  }
  if (recipe.keep_start > 0 && recipe.init_from.empty()) {
    return absl::InvalidArgumentError("recipe: keep_start: there is no init_from whose weights could be kept");
  }
  if (recipe.teacher.empty() && recipe.init_from.empty() &&
      (recipe.vocabulary < 300 || recipe.tokenizer_examples < 1)) {
    return absl::InvalidArgumentError(
        "recipe: expected vocabulary (at least 300) and tokenizer_examples, or a teacher or a file to start from");
  }
  for (const TrainStep& step : recipe.steps) {
    if (step.distill > 0 && recipe.teacher.empty()) {
      return absl::InvalidArgumentError("recipe: steps.distill needs a teacher");
    }
    if (step.written > 0 && recipe.sheets.empty()) {
      return absl::InvalidArgumentError("recipe: steps.written needs sheets");
    }
  }
  return recipe;
}

absl::StatusOr<Recipe> ReadRecipe(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxRecipeBytes);
  if (!text.ok()) return absl::Status(text.status().code(), absl::StrCat("--recipe ", text.status().message()));
  absl::StatusOr<Recipe> recipe = ParseRecipe(*text);
  if (!recipe.ok()) return recipe.status();
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  for (std::string* file : {&recipe->teacher, &recipe->init_from, &recipe->keep_from, &recipe->sheet_folder}) {
    if (!file->empty()) *file = (folder / *file).string();
  }
  return recipe;
}

}  // namespace updraft::train
