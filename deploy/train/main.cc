// updraft-train: runs a training recipe. `updraft train` starts this program.
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

#include "deploy/train/recipe.h"
#include "deploy/train/trainer.h"

namespace {

constexpr int kUsageError = 2;

int Usage(const std::string& problem) {
  std::cerr << "updraft-train: " << problem << "\n"
            << "usage: updraft-train --recipe R.json --out O.gguf [--resume] [--export-only] [--stop-after-updates N]\n"
            << "  --resume              go on from O.gguf.checkpoint, exactly where it stopped\n"
            << "  --export-only         write O.gguf from O.gguf.checkpoint as it stands\n"
            << "  --stop-after-updates  stop early, with a checkpoint\n";
  return kUsageError;
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
    } else {
      return Usage("unknown flag '" + flag + "'");
    }
  }
  if (recipe_path.empty() || options.out.empty()) return Usage("--recipe and --out are needed");
  const absl::StatusOr<updraft::train::Recipe> recipe = updraft::train::ReadRecipe(recipe_path);
  if (!recipe.ok()) {
    std::cerr << "updraft-train: " << recipe.status().message() << "\n";
    return EXIT_FAILURE;
  }
  if (const absl::Status status = updraft::train::Train(*recipe, options); !status.ok()) {
    std::cerr << "updraft-train: " << status.message() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
