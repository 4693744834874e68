#include "common/model/config.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

using testing::Edit;
using testing::EditFile;
using testing::Shape;
using testing::TempFile;

absl::StatusOr<ModelConfig> ConfigOf(const SynthShape& shape, const std::function<void(gguf::Writer&)>& edit) {
  TempFile original, edited;
  if (absl::Status s = Synthesize(shape, kernels::DType::kF32, original.path()); !s.ok()) return s;
  if (absl::Status s = EditFile(original.path(), edited.path(), {.metadata = edit}); !s.ok()) return s;
  absl::StatusOr<gguf::File> file = gguf::File::Open(edited.path());
  if (!file.ok()) return file.status();
  return ModelConfig::FromGguf(*file);
}

TEST(ModelConfigTest, ReadsWhatEachFamilyStates) {
  const auto llama = ConfigOf(Shape("tiny-llama"), [](gguf::Writer&) {}).value();
  EXPECT_EQ(llama.architecture, Architecture::kLlama);
  EXPECT_EQ(llama.n_layer, 2);
  EXPECT_EQ(llama.d_model, 64);
  EXPECT_EQ(llama.n_head, 4);
  EXPECT_EQ(llama.n_kv_head, 2);
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_EQ(llama.d_ff, 128);
  EXPECT_EQ(llama.n_vocab, 320);
  EXPECT_EQ(llama.context_length, 256);
  EXPECT_TRUE(llama.rope_interleaved);
  EXPECT_FALSE(llama.qkv_bias || llama.qk_norm || llama.tied_output);
  EXPECT_TRUE(llama.exit_layers.empty());

  const auto qwen2 = ConfigOf(Shape("tiny-qwen2"), [](gguf::Writer&) {}).value();
  EXPECT_FALSE(qwen2.rope_interleaved);
  EXPECT_TRUE(qwen2.qkv_bias && qwen2.tied_output);
  EXPECT_FALSE(qwen2.qk_norm);

  const auto qwen3 = ConfigOf(Shape("tiny-qwen3"), [](gguf::Writer&) {}).value();
  EXPECT_FALSE(qwen3.rope_interleaved);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 32);  // stated, and not d_model / n_head
}

TEST(ModelConfigTest, ReadsRopeScaling) {
  const auto linear = ConfigOf(Shape("tiny-llama"), [](gguf::Writer& w) {
                        w.SetString("llama.rope.scaling.type", "linear");
                        w.SetF32("llama.rope.scaling.factor", 4.0f);
                      }).value();
  EXPECT_FLOAT_EQ(linear.rope_freq_scale, 0.25f);
  EXPECT_EQ(linear.rope_ext_factor, 0.0f);
  const auto yarn = ConfigOf(Shape("tiny-llama"), [](gguf::Writer& w) {
                      w.SetString("llama.rope.scaling.type", "yarn");
                      w.SetF32("llama.rope.scaling.factor", 2.0f);
                      w.SetU32("llama.rope.scaling.original_context_length", 128);
                    }).value();
  EXPECT_FLOAT_EQ(yarn.rope_freq_scale, 0.5f);
  EXPECT_EQ(yarn.rope_ext_factor, 1.0f);
  EXPECT_EQ(yarn.rope_orig_context, 128);
  const auto none = ConfigOf(Shape("tiny-llama"), [](gguf::Writer& w) {
                      w.SetString("llama.rope.scaling.type", "none");
                      w.SetF32("llama.rope.scaling.factor", 8.0f);
                    }).value();
  EXPECT_FLOAT_EQ(none.rope_freq_scale, 1.0f);
  const auto old_key =
      ConfigOf(Shape("tiny-llama"), [](gguf::Writer& w) { w.SetF32("llama.rope.scale_linear", 8.0f); });
  EXPECT_FLOAT_EQ(old_key.value().rope_freq_scale, 0.125f);
}

TEST(ModelConfigTest, ReadsExits) {
  const auto config = ConfigOf(Shape("tiny-exits"), [](gguf::Writer&) {}).value();
  EXPECT_EQ(config.exit_layers, (std::vector<int>{2, 4}));
  EXPECT_EQ(config.exit_thresholds, (std::vector<float>{0.5f, 0.5f}));
}

TEST(ModelConfigTest, ReadsSparsity) {
  EXPECT_EQ(ConfigOf(Shape("tiny-llama"), [](gguf::Writer&) {}).value().ffn_group, 0);
  SynthShape shape = Shape("tiny-llama");
  shape.ffn_active = 0.2;
  const auto config = ConfigOf(shape, [](gguf::Writer&) {}).value();
  EXPECT_EQ(config.ffn_group, 64);
  ASSERT_EQ(config.ffn_thresholds.size(), static_cast<size_t>(config.n_layer));
  // A fifth of a normal distribution lies above 0.8416; silu(4 * 0.8416).
  EXPECT_NEAR(config.ffn_thresholds[0], 3.2535, 1e-3);
}

struct Hostile {
  std::string name;
  std::function<void(gguf::Writer&)> edit;
  absl::StatusCode code;
  std::string says;
};

std::vector<Hostile> HostileCases() {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto lacking = absl::StatusCode::kUnimplemented;
  const auto u32 = [](const std::string& key, uint32_t value) {
    return [=](gguf::Writer& w) { w.SetU32(key, value); };
  };
  const auto u64 = [](const std::string& key, uint64_t value) {
    return [=](gguf::Writer& w) { w.SetU64(key, value); };
  };
  const auto f32 = [](const std::string& key, float value) { return [=](gguf::Writer& w) { w.SetF32(key, value); }; };
  const auto text = [](const std::string& key, const std::string& value) {
    return [=](gguf::Writer& w) { w.SetString(key, value); };
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto sparsity = [](uint32_t group, std::vector<float> thresholds) {
    return [=](gguf::Writer& w) {
      w.SetU32("updraft.ffn_sparsity.group", group);
      w.SetF32s("updraft.ffn_sparsity.thresholds", thresholds);
    };
  };
  return {
      {"unknown_architecture", text("general.architecture", "mamba"), lacking, "'mamba'"},
      {"architecture_is_number", u32("general.architecture", 7), invalid, "general.architecture"},
      {"no_layers", u32("llama.block_count", 0), invalid, "llama.block_count"},
      {"many_layers", u64("llama.block_count", uint64_t{1} << 60), invalid, "found 1152921504606846976"},
      {"all_bits_layers", u64("llama.block_count", ~uint64_t{0}), invalid, "llama.block_count"},
      {"negative_layers", [](gguf::Writer& w) { w.SetI32("llama.block_count", -1); }, invalid, "llama.block_count"},
      {"layers_as_text", text("llama.block_count", "two"), invalid, "llama.block_count"},
      {"no_width", u32("llama.embedding_length", 0), invalid, "llama.embedding_length"},
      {"huge_width", u64("llama.embedding_length", uint64_t{1} << 60), invalid, "llama.embedding_length"},
      {"no_heads", u32("llama.attention.head_count", 0), invalid, "llama.attention.head_count"},
      {"no_kv_heads", u32("llama.attention.head_count_kv", 0), invalid, "llama.attention.head_count_kv"},
      {"heads_do_not_divide", u32("llama.attention.head_count_kv", 3), invalid, "multiple"},
      {"no_head_width", u32("llama.attention.key_length", 0), invalid, "llama.attention.key_length"},
      {"value_width_differs", u32("llama.attention.value_length", 8), lacking, "value_length"},
      {"no_ff", u32("llama.feed_forward_length", 0), invalid, "llama.feed_forward_length"},
      {"no_context", u32("llama.context_length", 0), invalid, "llama.context_length"},
      {"huge_context", u64("llama.context_length", uint64_t{1} << 40), invalid, "llama.context_length"},
      {"eps_nan", f32("llama.attention.layer_norm_rms_epsilon", kNan), invalid, "epsilon"},
      {"eps_negative", f32("llama.attention.layer_norm_rms_epsilon", -1.0f), invalid, "epsilon"},
      {"rope_odd", u32("llama.rope.dimension_count", 7), invalid, "dimension_count"},
      {"rope_wider_than_head", u32("llama.rope.dimension_count", 64), invalid, "dimension_count"},
      {"rope_base_zero", f32("llama.rope.freq_base", 0.0f), invalid, "freq_base"},
      {"rope_base_nan", f32("llama.rope.freq_base", kNan), invalid, "freq_base"},
      {"rope_scaling_unknown", text("llama.rope.scaling.type", "longrope"), lacking, "longrope"},
      {"rope_factor_negative", f32("llama.rope.scaling.factor", -2.0f), invalid, "scaling.factor"},
      {"experts", u32("llama.expert_count", 8), lacking, "expert"},
      {"no_tokens", [](gguf::Writer& w) { w.SetStrings("tokenizer.ggml.tokens", std::span<const std::string>()); },
       invalid, "tokenizer.ggml.tokens"},
      {"tokens_no_array", u32("tokenizer.ggml.tokens", 3), invalid, "tokenizer.ggml.tokens"},
      {"exits_without_thresholds", [](gguf::Writer& w) { w.SetU32s("updraft.exit.layers", std::vector<uint32_t>{1}); },
       absl::StatusCode::kNotFound, "updraft.exit.thresholds"},
      {"exits_not_ascending",
       [](gguf::Writer& w) {
         w.SetU32s("updraft.exit.layers", std::vector<uint32_t>{1, 1});
         w.SetF32s("updraft.exit.thresholds", std::vector<float>{0.5f, 0.5f});
       },
       invalid, "ascending"},
      {"exit_at_the_end",
       [](gguf::Writer& w) {
         w.SetU32s("updraft.exit.layers", std::vector<uint32_t>{2});
         w.SetF32s("updraft.exit.thresholds", std::vector<float>{0.5f});
       },
       invalid, "updraft.exit.layers"},
      {"exit_threshold_nan",
       [=](gguf::Writer& w) {
         w.SetU32s("updraft.exit.layers", std::vector<uint32_t>{1});
         w.SetF32s("updraft.exit.thresholds", std::vector<float>{kNan});
       },
       invalid, "updraft.exit.thresholds"},
      {"exit_counts_differ",
       [](gguf::Writer& w) {
         w.SetU32s("updraft.exit.layers", std::vector<uint32_t>{1});
         w.SetF32s("updraft.exit.thresholds", std::vector<float>{0.5f, 0.5f});
       },
       invalid, "updraft.exit.thresholds"},
      {"sparsity_without_thresholds", u32("updraft.ffn_sparsity.group", 32), absl::StatusCode::kNotFound,
       "updraft.ffn_sparsity.thresholds"},
      {"sparsity_group_zero", sparsity(0, {1.0f, 1.0f}), invalid, "multiple of 32"},
      {"sparsity_group_off", sparsity(48, {1.0f, 1.0f}), invalid, "multiple of 32"},
      {"sparsity_group_does_not_divide", sparsity(96, {1.0f, 1.0f}), invalid, "divides"},
      {"sparsity_few_thresholds", sparsity(32, {1.0f}), invalid, "each of 2 layers"},
      {"sparsity_threshold_nan", sparsity(32, {1.0f, kNan}), invalid, "at least 0"},
      {"sparsity_threshold_negative", sparsity(32, {-1.0f, 1.0f}), invalid, "found -1"},
      {"sparsity_thresholds_as_text",
       [](gguf::Writer& w) {
         w.SetU32("updraft.ffn_sparsity.group", 32);
         w.SetString("updraft.ffn_sparsity.thresholds", "1 1");
       },
       invalid, "updraft.ffn_sparsity.thresholds"},
  };
}

class HostileConfigTest : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileConfigTest, IsRefusedByName) {
  const absl::StatusOr<ModelConfig> config = ConfigOf(Shape("tiny-llama"), GetParam().edit);
  EXPECT_EQ(config.status().code(), GetParam().code) << config.status();
  EXPECT_NE(std::string(config.status().message()).find(GetParam().says), std::string::npos) << config.status();
}

INSTANTIATE_TEST_SUITE_P(Fields, HostileConfigTest, ::testing::ValuesIn(HostileCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace updraft
