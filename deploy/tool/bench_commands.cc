// bench model | kernels | peers | serve: speed beside the machine's limits.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/files/atomic_file.h"
#include "common/model/model.h"
#include "deploy/bench/peers.h"
#include "deploy/bench/roofline_svg.h"
#include "deploy/bench/serve_bench.h"
#include "deploy/evaluate/bench_model.h"
#include "deploy/tool/commands.h"
#include "kernels/arch.h"
#include "kernels/bench/kernel_bench.h"
#include "kernels/thread_pool.h"

namespace updraft::tool {
namespace {

using nlohmann::json;

json ToJson(const Spread& spread) { return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}}; }
json ToJson(const Percentiles& p) { return {{"p50", p.p50}, {"p95", p.p95}, {"p99", p.p99}}; }

struct ModelFlags {
  std::string model;
  LoadOptions load;
  bool as_json = false;
  BenchModelOptions options;
};

absl::Status RunBenchModel(ModelFlags flags) {
  flags.options.pin_threads = flags.load.pin_threads;
  auto model = LoadModel(flags.model, flags.load);
  if (!model.ok()) return model.status();
  auto result = BenchModel(**model, flags.options);
  if (!result.ok()) return result.status();
  if (flags.as_json) {
    std::cout << json{{"model", flags.model},
                      {"backend", (*model)->ops().name()},
                      {"prefill_tok_s", ToJson(result->prefill_tok_s)},
                      {"decode_tok_s", ToJson(result->decode_tok_s)},
                      {"sequences", flags.options.sequences},
                      {"bytes_per_token", result->bytes_per_token},
                      {"bandwidth_gb_s", result->bandwidth_gb_s},
                      {"roof_gb_s", result->roof_gb_s},
                      {"roof_fraction", result->roof_fraction}}
                     .dump()
              << "\n";
    return absl::OkStatus();
  }
  std::cout << absl::StrFormat(
      "%s (%s)\n  prefill %4d: %8.1f tok/s  [%.1f, %.1f]\n  decode  %4d: %8.1f tok/s  [%.1f, %.1f]  %.1f MB per %s, "
      "%.1f GB/s, %.0f %% of the %.1f that memory gives\n",
      flags.model, (*model)->ops().name(), flags.options.prefill, result->prefill_tok_s.median,
      result->prefill_tok_s.min, result->prefill_tok_s.max, flags.options.decode, result->decode_tok_s.median,
      result->decode_tok_s.min, result->decode_tok_s.max, static_cast<double>(result->bytes_per_token) / 1e6,
      flags.options.sequences == 1 ? "token" : absl::StrCat(flags.options.sequences, " tokens"), result->bandwidth_gb_s,
      100 * result->roof_fraction, result->roof_gb_s);
  if ((*model)->config().ffn_group > 0) std::cout << "  " << (*model)->DescribeSparsity() << "\n";
  if (const std::string layouts = (*model)->DescribeLayouts(); !layouts.empty()) std::cout << "  " << layouts << "\n";
  return absl::OkStatus();
}

void AddBenchModel(CLI::App* bench, int* exit_code) {
  auto flags = std::make_shared<ModelFlags>();
  CLI::App* command = bench->add_subcommand("model", "Prefill and decode speed of a model file");
  command->add_option("--model", flags->model, "GGUF file")->required();
  command->add_option("--prefill", flags->options.prefill, "Prompt tokens; 0: skip")->check(CLI::Range(0, 1 << 20));
  command->add_option("--decode", flags->options.decode, "Tokens to decode; 0: skip")->check(CLI::Range(0, 1 << 20));
  command->add_option("--sequences", flags->options.sequences, "That decode together")->check(CLI::Range(1, 4096));
  command->add_option("--repeat", flags->options.repeat, "Measured runs")->check(CLI::Range(1, 1000));
  AddKvTypeOption(command, &flags->options.kv_type);
  AddLoadOptions(command, &flags->load);
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code] {
    if (absl::Status status = RunBenchModel(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

struct KernelFlags {
  kernels::KernelBenchOptions options;
  bool as_json = false;
  std::string svg;
};

json ToJson(const kernels::KernelBenchResult& r) {
  return {{"name", r.name},
          {"bytes", r.bytes},
          {"flops", r.flops},
          {"seconds", {{"median", r.seconds.median}, {"min", r.seconds.min}, {"max", r.seconds.max}}},
          {"gb_s", r.gb_s},
          {"gflop_s", r.gflop_s},
          {"roof_gb_s", r.roof_gb_s},
          {"peak_gflop_s", r.peak_gflop_s},
          {"roofline_fraction", r.roofline_fraction}};
}

// Products only: the other kernels work in the caches, where bytes set no limit.
std::string Roofline(kernels::Isa isa, const kernels::MachinePeaks& peaks,
                     std::span<const kernels::KernelBenchResult> results) {
  std::vector<RooflinePoint> points;
  std::vector<double> roofs;
  for (const kernels::KernelBenchResult& r : results) {
    const std::vector<std::string> words = absl::StrSplit(r.name, ' ');
    if (words[0] != "matmul" || r.bytes <= 0) continue;
    points.push_back({words[1], r.name, r.flops / r.bytes, r.gflop_s});
    roofs.push_back(r.roof_gb_s);
  }
  const double gb_s = roofs.empty() ? peaks.read_gb_s_all : kernels::SpreadOf(roofs).median;
  return RooflineSvg(absl::StrCat("Products y = x W on ", kernels::IsaName(isa)),
                     {gb_s, {{"int8", peaks.int8_gop_s}, {"bf16", peaks.bf16_gflop_s}, {"fp32", peaks.fp32_gflop_s}}},
                     points);
}

absl::Status RunBenchKernels(const KernelFlags& flags) {
  std::optional<AtomicFile> plot;  // before minutes of measuring
  if (!flags.svg.empty()) {
    auto file = AtomicFile::Create(flags.svg);
    if (!file.ok()) return WithFlag("--svg:", file.status());
    plot.emplace(*std::move(file));
  }
  const kernels::Isa isa = kernels::ChooseIsa();
  const kernels::MachinePeaks peaks = kernels::ProbeMachine(isa, flags.options.n_threads);
  json results = json::array();
  std::vector<kernels::KernelBenchResult> all;
  if (!flags.as_json) {
    std::cout << absl::StrFormat(
                     "%s: memory %.1f GB/s on one thread, %.1f on all; int8 %.0f Gop/s, bf16 %.0f, fp32 %.0f Gflop/s\n",
                     kernels::IsaName(isa), peaks.read_gb_s_one, peaks.read_gb_s_all, peaks.int8_gop_s,
                     peaks.bf16_gflop_s, peaks.fp32_gflop_s)
              << absl::StrFormat("%-44s %9s %9s %9s %10s %7s\n", "kernel", "us", "GB/s", "(probe)", "Gop/s", "of roof");
  }
  kernels::RunKernelBenches(flags.options, peaks, [&](const kernels::KernelBenchResult& r) {
    all.push_back(r);
    if (flags.as_json) {
      results.push_back(ToJson(r));
      return;
    }
    std::cout << absl::StrFormat("%-44s %9.1f %9.1f %9.1f %10.1f %5.0f %%\n", r.name, 1e6 * r.seconds.median, r.gb_s,
                                 r.roof_gb_s, r.gflop_s, 100 * r.roofline_fraction)
              << std::flush;
  });
  if (flags.as_json) {
    std::cout << json{{"isa", kernels::IsaName(isa)},
                      {"read_gb_s_one", peaks.read_gb_s_one},
                      {"read_gb_s_all", peaks.read_gb_s_all},
                      {"int8_gop_s", peaks.int8_gop_s},
                      {"bf16_gflop_s", peaks.bf16_gflop_s},
                      {"fp32_gflop_s", peaks.fp32_gflop_s},
                      {"kernels", results}}
                     .dump()
              << "\n";
  }
  if (!plot) return absl::OkStatus();
  const std::string svg = Roofline(isa, peaks, all);
  absl::Status status = plot->Append(std::as_bytes(std::span(svg)));
  if (status.ok()) status = plot->Commit();
  return status.ok() ? status : WithFlag("--svg:", status);
}

void AddBenchKernels(CLI::App* bench, int* exit_code) {
  auto flags = std::make_shared<KernelFlags>();
  CLI::App* command = bench->add_subcommand("kernels", "Each kernel beside the machine's measured peaks");
  command->add_option("--filter", flags->options.filter, "Only kernels whose name contains it");
  command->add_option("--threads", flags->options.n_threads, "0: what the process may use")->check(CLI::Range(0, 1024));
  command->add_option("--repeat", flags->options.repeat, "Pairs of kernel and bandwidth probe")
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->add_option("--svg", flags->svg, "File for a roofline plot of the products");
  command->callback([flags, exit_code] {
    if (absl::Status status = RunBenchKernels(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

json ToJson(const PeerSpeeds& speeds, double Speed::*of) {
  json values = json::array();
  for (const Speed& round : speeds.rounds) values.push_back(round.*of);
  return values;
}

double MedianOf(const PeerSpeeds& speeds, double Speed::*of) {
  std::vector<double> values;
  for (const Speed& round : speeds.rounds) values.push_back(round.*of);
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct PeerFlags {
  PeerBenchOptions options;
  std::vector<std::string> models;
  std::string folder;
  bool as_json = false;
};

absl::Status RunBenchPeers(PeerFlags flags) {
  std::error_code error;
  flags.options.self = std::filesystem::read_symlink("/proc/self/exe", error).string();
  if (error) return absl::UnavailableError("bench peers: /proc/self/exe: " + error.message());
  auto peers = FindPeers(flags.folder);
  if (!peers.ok()) return peers.status();
  const kernels::Isa isa = kernels::ChooseIsa();
  if (flags.options.n_threads == 0) flags.options.n_threads = kernels::AvailableCpus();
  for (const std::string& model : flags.models) {
    flags.options.model = model;
    const double gb_s = kernels::ProbeMachine(isa, flags.options.n_threads).read_gb_s_all;
    auto speeds = RunPeers(*peers, flags.options, [](const std::string& name, int round, Speed speed) {
      std::fprintf(stderr, "  round %d  %-24s %8.1f %8.1f tok/s\n", round + 1, name.c_str(), speed.prefill_tok_s,
                   speed.decode_tok_s);
    });
    if (!speeds.ok()) return speeds.status();
    json rows = json::array();
    if (!flags.as_json) {
      std::cout << absl::StrFormat("%s, %d threads, %d rounds; memory %.1f GB/s\n", model, flags.options.n_threads,
                                   flags.options.rounds, gb_s);
      std::cout << absl::StrFormat("  %-24s %11s %9s   ours / theirs, median [min, max]: prefill, decode\n", "",
                                   absl::StrCat("prefill ", flags.options.prefill),
                                   absl::StrCat("decode ", flags.options.decode));
    }
    for (const PeerSpeeds& peer : *speeds) {
      const Ratio prefill = RatioOf(speeds->front(), peer, &Speed::prefill_tok_s);
      const Ratio decode = RatioOf(speeds->front(), peer, &Speed::decode_tok_s);
      rows.push_back({{"name", peer.name},
                      {"prefill_tok_s", ToJson(peer, &Speed::prefill_tok_s)},
                      {"decode_tok_s", ToJson(peer, &Speed::decode_tok_s)},
                      {"prefill_ratio", {{"median", prefill.median}, {"min", prefill.min}, {"max", prefill.max}}},
                      {"decode_ratio", {{"median", decode.median}, {"min", decode.min}, {"max", decode.max}}}});
      if (flags.as_json) continue;
      std::cout << absl::StrFormat("  %-24s %11.1f %9.1f   %.2f [%.2f, %.2f]   %.2f [%.2f, %.2f]\n", peer.name,
                                   MedianOf(peer, &Speed::prefill_tok_s), MedianOf(peer, &Speed::decode_tok_s),
                                   prefill.median, prefill.min, prefill.max, decode.median, decode.min, decode.max);
    }
    if (!flags.as_json) continue;
    std::cout << json{{"model", model},
                      {"threads", flags.options.n_threads},
                      {"prefill", flags.options.prefill},
                      {"decode", flags.options.decode},
                      {"read_gb_s", gb_s},
                      {"programs", rows}}
                     .dump()
              << "\n";
  }
  return absl::OkStatus();
}

void AddBenchPeers(CLI::App* bench, int* exit_code) {
  auto flags = std::make_shared<PeerFlags>();
  CLI::App* command = bench->add_subcommand("peers", "The same files through the llama-bench programs of a folder");
  command->add_option("--model", flags->models, "GGUF files")->required();
  command->add_option("--peers", flags->folder, "Folder with builds of llama.cpp or its forks")->required();
  command->add_option("--peer-args", flags->options.peer_args, "Added to each llama-bench command, such as -fa,1")
      ->delimiter(',');
  command->add_option("--prefill", flags->options.prefill, "Prompt tokens")->check(CLI::Range(1, 1 << 20));
  command->add_option("--decode", flags->options.decode, "Tokens to decode")->check(CLI::Range(1, 1 << 20));
  command->add_option("--rounds", flags->options.rounds, "Times each program runs")->check(CLI::Range(1, 1000));
  command->add_option("--threads", flags->options.n_threads, "0: what the process may use")->check(CLI::Range(0, 1024));
  command->add_flag("--json", flags->as_json, "One JSON object per model on stdout");
  command->callback([flags, exit_code] {
    if (absl::Status status = RunBenchPeers(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

absl::Status RunServe(const ServeBenchOptions& options, bool as_json) {
  auto result = RunServeBench(options);
  if (!result.ok()) return result.status();
  if (as_json) {
    std::cout << json{{"output_tok_s", result->output_tok_s},
                      {"ttft_ms", ToJson(result->ttft_ms)},
                      {"itl_ms", ToJson(result->itl_ms)},
                      {"latency_ms", ToJson(result->latency_ms)},
                      {"completed", result->completed},
                      {"errors", result->errors},
                      {"first_error", result->first_error},
                      {"output_tokens", result->output_tokens},
                      {"seconds", result->seconds}}
                     .dump()
              << "\n";
  } else {
    std::cout << absl::StrFormat("%d completed, %d errors, %d tokens in %.2f s: %.1f tok/s\n", result->completed,
                                 result->errors, result->output_tokens, result->seconds, result->output_tok_s);
    const auto line = [](const char* name, const Percentiles& p) {
      std::cout << absl::StrFormat("  %-8s p50 %8.2f ms   p95 %8.2f ms   p99 %8.2f ms\n", name, p.p50, p.p95, p.p99);
    };
    line("TTFT", result->ttft_ms);
    line("ITL", result->itl_ms);
    line("latency", result->latency_ms);
  }
  if (result->errors > 0) return absl::UnavailableError("bench serve: " + result->first_error);
  return absl::OkStatus();
}

void AddBenchServe(CLI::App* bench, int* exit_code) {
  struct Flags {
    ServeBenchOptions options;
    int timeout_s = 120;
    bool as_json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench->add_subcommand("serve", "Load a server: TTFT, inter-token latency, throughput");
  ServeBenchOptions& options = flags->options;
  command->add_option("--grpc", options.grpc, "HOST:PORT of an Inference service");
  command->add_option("--openai", options.openai, "http://HOST:PORT[/v1] of an OpenAI-compatible server");
  command->add_option("--openai-model", options.openai_model, "Model name; default: the first listed");
  command->add_option("--concurrency", options.concurrency, "Requests in flight");
  command->add_option("--requests", options.requests, "Requests in all");
  command->add_option("--prompt-tokens", options.prompt_tokens, "Per request");
  command->add_option("--output-tokens", options.output_tokens, "Asked for per request");
  command->add_option("--shared-prefix", options.shared_prefix, "Share of every prompt that is the same beginning");
  command->add_option("--vary", options.vary, "Lengths vary by so much both ways: 0.5 is half to one and a half");
  command->add_option("--rate", options.rate, "Requests per second, Poisson arrivals; 0: as concurrency allows");
  command->add_option(
      "--seed", options.seed,
      "Of prompts and arrivals; a server that caches prefixes knows those of an earlier run with the same");
  command->add_option("--timeout", flags->timeout_s, "Seconds per request")->check(CLI::Range(1, 86400));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code] {
    flags->options.timeout = absl::Seconds(flags->timeout_s);
    if (absl::Status status = RunServe(flags->options, flags->as_json); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace

void AddBenchCommands(CLI::App& app, int* exit_code) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed: model, kernels, peers, serve");
  bench->require_subcommand(1);
  AddBenchModel(bench, exit_code);
  AddBenchKernels(bench, exit_code);
  AddBenchPeers(bench, exit_code);
  AddBenchServe(bench, exit_code);
}

}  // namespace updraft::tool
