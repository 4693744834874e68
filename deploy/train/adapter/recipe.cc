#include "deploy/train/adapter/recipe.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/files/read_file.h"
#include "deploy/train/adapter/lora_targets.h"
#include "deploy/train/recipe_fields.h"

namespace updraft::train {
namespace {

using nlohmann::json;

constexpr size_t kMaxRecipeBytes = size_t{1} << 20;

void ReadNames(const char* key, RecipeFields* fields, std::vector<std::string>* out) {
  const json* value = fields->Find(key);
  if (value == nullptr) return;
  if (!value->is_array()) return fields->Fail(key, "expected a list of texts");
  out->clear();
  for (const json& item : *value) {
    if (!item.is_string()) return fields->Fail(key, "expected a list of texts");
    out->push_back(item.get<std::string>());
  }
}

absl::Status ParseAdapter(const json& object, LoraShape* shape) {
  RecipeFields fields(object, "adapter");
  fields.Number("rank", 1, 1024, &shape->rank);
  fields.Number("alpha", 1e-3, 1e6, &shape->alpha);
  ReadNames("targets", &fields, &shape->targets);
  for (const std::string& target : shape->targets) {
    if (std::find(kLoraTargets.begin(), kLoraTargets.end(), target) == kLoraTargets.end()) {
      fields.Fail("targets",
                  absl::StrCat("'", target, "' is not one of attn_q, attn_k, attn_v, attn_output, ffn_gate, ",
                               "ffn_up, ffn_down"));
    }
  }
  return fields.Finish();
}

absl::Status ParseGenerated(const json& object, AdapterRecipe* recipe) {
  RecipeFields fields(object, "generated");
  fields.Number("share", 0, 1, &recipe->generated_share);
  fields.Number("english", 0, 1, &recipe->english_share);
  if (const json* mix = fields.Find("mix")) fields.Absorb(ParseMix(*mix, "generated.mix", &recipe->mix));
  return fields.Finish();
}

void ReadSheets(RecipeFields* fields, AdapterRecipe* recipe) {
  fields->Text("sheet_folder", &recipe->sheet_folder);
  ReadNames("held_out", fields, &recipe->held_out);
  ParseSheets(fields, &recipe->sheets);
  if (const json* vary = fields->Find("vary")) fields->Absorb(ParseVariation(*vary, "vary", &recipe->vary));
  for (const auto& [name, times] : recipe->sheets) {
    if (std::find(recipe->held_out.begin(), recipe->held_out.end(), name) != recipe->held_out.end()) {
      return fields->Fail("sheets", absl::StrCat("'", name, "' is held out, too; take it out of one of the lists"));
    }
  }
}

void ReadLength(RecipeFields* fields, AdapterRecipe* recipe) {
  fields->Number("updates", 1, 1e9, &recipe->updates);
  fields->Number("minutes", 0.01, 1e5, &recipe->minutes);
  fields->Number("warmup", 0, 1, &recipe->warmup);
  fields->Number("decay", 0, 1, &recipe->decay);
  fields->Number("final_rate", 0, 1, &recipe->final_rate);
  fields->Number("learning_rate", 0, 1, &recipe->learning_rate);
  fields->Number("weight_decay", 0, 1, &recipe->weight_decay);
  fields->Number("clip", 0, 1e6, &recipe->clip);
  fields->Number("batch_tokens", 64, 1 << 20, &recipe->batch_tokens);
  fields->Number("batches", 1, 1 << 10, &recipe->batches);
  fields->Number("max_tokens", 16, 1 << 16, &recipe->max_tokens);
  if ((recipe->updates > 0) == (recipe->minutes > 0)) fields->Fail("recipe: expected one of updates and minutes");
}

}  // namespace

bool IsAdapterRecipe(std::string_view text) {
  const json parsed = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  return parsed.is_object() && parsed.contains("base");
}

absl::StatusOr<AdapterRecipe> ParseAdapterRecipe(std::string_view text) {
  const json parsed = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded())
    return absl::InvalidArgumentError("recipe: expected one JSON object; check commas and quotes");
  AdapterRecipe recipe;
  recipe.text = std::string(text);
  RecipeFields fields(parsed, "recipe");
  fields.Text("name", &recipe.name);
  fields.Number("seed", 0, 1e15, &recipe.seed);
  fields.Text("base", &recipe.base);
  fields.Text("base_sha256", &recipe.base_sha256);
  fields.Text("init_adapter", &recipe.init_adapter);
  if (const json* adapter = fields.Find("adapter")) fields.Absorb(ParseAdapter(*adapter, &recipe.adapter));
  if (recipe.adapter.alpha == 0) recipe.adapter.alpha = 2 * recipe.adapter.rank;
  if (recipe.adapter.targets.empty()) recipe.adapter.targets.assign(kLoraTargets.begin(), kLoraTargets.end());
  ReadLength(&fields, &recipe);
  fields.Number("reply_weight", 0, 10, &recipe.reply_weight);
  fields.Number("question_share", 0, 1, &recipe.question_share);
  fields.Number("question_weight", 0, 10, &recipe.question_weight);
  ReadSheets(&fields, &recipe);
  if (const json* generated = fields.Find("generated")) fields.Absorb(ParseGenerated(*generated, &recipe));
  fields.Number("check_examples", 0, 1e6, &recipe.check_examples);
  fields.Number("check_seconds", 1, 1e6, &recipe.check_seconds);
  fields.Number("checkpoint_seconds", 1, 1e6, &recipe.checkpoint_seconds);
  if (recipe.base.empty()) fields.Fail("recipe.base: expected the path of a GGUF model");
  if (recipe.sheets.empty() && recipe.generated_share == 0) {
    fields.Fail("recipe: expected sheets, or a share of generated requests above 0");
  }
  if (recipe.sheets.empty()) recipe.generated_share = 1;
  if (absl::Status status = fields.Finish(); !status.ok()) return status;
  return recipe;
}

absl::StatusOr<AdapterRecipe> ReadAdapterRecipe(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxRecipeBytes);
  if (!text.ok()) return absl::Status(text.status().code(), absl::StrCat("--recipe ", text.status().message()));
  absl::StatusOr<AdapterRecipe> recipe = ParseAdapterRecipe(*text);
  if (!recipe.ok()) return recipe.status();
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  for (std::string* file : {&recipe->base, &recipe->init_adapter, &recipe->sheet_folder}) {
    if (!file->empty()) *file = (folder / *file).string();
  }
  return recipe;
}

}  // namespace updraft::train
