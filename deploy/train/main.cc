// updraft-train: runs a training recipe. `updraft train` starts this program.
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

#include "common/files/read_file.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/adapter/trainer.h"
#include "deploy/train/recipe.h"
#include "deploy/train/trainer.h"

namespace {

constexpr int kUsageError = 2;

int Usage(const std::string& problem) {
  std::cerr << "updraft-train: " << problem << "\n"
            << "usage: updraft-train --recipe R.json --out O.gguf [--resume] [--export-only]\n"
            << "                     [--stop-after-updates N] [--minutes M] [--base B.gguf]\n"
            << "  --resume              go on from O.gguf.checkpoint, exactly where it stopped\n"
            << "  --export-only         write O.gguf from O.gguf.checkpoint as it stands\n"
            << "  --stop-after-updates  stop early, with a checkpoint\n"
            << "  --minutes             the same by the clock; for recipes with a base, as the next\n"
            << "  --base FILE           where the base lies, if not where the recipe says\n";
  return kUsageError;
}

// A recipe with a base trains an adapter over it, any other a model from nothing.
absl::Status Run(const std::string& path, const updraft::train::TrainOptions& options) {
  const absl::StatusOr<std::string> text = updraft::ReadFile(path);
  if (text.ok() && updraft::train::IsAdapterRecipe(*text)) {
    absl::StatusOr<updraft::train::AdapterRecipe> recipe = updraft::train::ReadAdapterRecipe(path);
    if (recipe.ok() && !options.base.empty()) recipe->base = options.base;
    return recipe.ok() ? updraft::train::TrainAdapter(*recipe, options) : recipe.status();
  }
  const absl::StatusOr<updraft::train::Recipe> recipe = updraft::train::ReadRecipe(path);
  if (recipe.ok() && (options.minutes > 0 || !options.base.empty())) {
    return absl::InvalidArgumentError("--minutes and --base are for recipes with a base");
  }
  return recipe.ok() ? updraft::train::Train(*recipe, options) : recipe.status();
}

}  // namespace

int main(int argc, char** argv) {
  std::string recipe_path;
  updraft::train::TrainOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string { return i + 1 < argc ? argv[++i] : ""; };
    if (flag == "--recipe") {
      recipe_path = value();
    } else if (flag == "--out") {
      options.out = value();
    } else if (flag == "--resume") {
      options.resume = true;
    } else if (flag == "--export-only") {
      options.export_only = options.resume = true;
    } else if (flag == "--stop-after-updates") {
      const std::string number = value();
      char* end = nullptr;
      options.stop_after_updates = std::strtoll(number.c_str(), &end, 10);
      if (number.empty() || *end != '\0' || options.stop_after_updates < 1) {
        return Usage("--stop-after-updates: expected a number above 0, found '" + number + "'");
      }
    } else if (flag == "--base") {
      options.base = value();
    } else if (flag == "--minutes") {
      const std::string number = value();
      char* end = nullptr;
      options.minutes = std::strtod(number.c_str(), &end);
      if (number.empty() || *end != '\0' || !(options.minutes > 0)) {
        return Usage("--minutes: expected a number above 0, found '" + number + "'");
      }
    } else {
      return Usage("unknown flag '" + flag + "'");
    }
  }
  if (recipe_path.empty() || options.out.empty()) return Usage("--recipe and --out are needed");
  if (const absl::Status status = Run(recipe_path, options); !status.ok()) {
    std::cerr << "updraft-train: " << status.message() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
