// What checkpoints say about their models, from both containers, right and wrong, and the plans made of them.
#include "model/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "format/files_for_test.h"
#include "format/gguf_builder_for_test.h"
#include "format/safetensors_writer.h"

namespace llorch {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kTinyLlama = LLORCH_SOURCE_DIR "/tests/fixtures/tiny-llama";

json llama_json() {
  return {{"model_type", "llama"},    {"hidden_size", 64},
          {"intermediate_size", 160}, {"num_hidden_layers", 3},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"vocab_size", 300},        {"max_position_embeddings", 2048},
          {"rms_norm_eps", 1e-5},     {"hidden_act", "silu"},
          {"rope_theta", 50000.0},    {"eos_token_id", 2}};
}

class HfConfig : public testing::Test {
 protected:
  HfConfig() {
    const float values[2] = {};
    const Tensor tensor{"model.norm.weight", DType::kF32, {2}, std::as_bytes(std::span(values))};
    write_safetensors(directory_.path() / "model.safetensors", {&tensor, 1});
  }

  ModelConfig read(const json& config) {
    directory_.write("config.json", config.dump());
    return read_config(Checkpoint::open(directory_.path()));
  }
  ModelConfig read_with(const char* key, const json& value) {
    json config = llama_json();
    config[key] = value;
    return read(config);
  }
  std::string error_with(const char* key, const json& value) {
    return error_of([&] { read_with(key, value); });
  }
  std::string error_without(const char* key) {
    json config = llama_json();
    config.erase(key);
    return error_of([&] { read(config); });
  }
  std::string where() const { return directory_.path().string() + ": "; }

  TempDirectory directory_;
};

TEST_F(HfConfig, IsRead) {
  const ModelConfig c = read(llama_json());
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.name, directory_.path().filename().string());
  EXPECT_EQ(c.hidden, 64u);
  EXPECT_EQ(c.ffn, 160u);
  EXPECT_EQ(c.n_layers, 3u);
  EXPECT_EQ(c.n_heads, 4u);
  EXPECT_EQ(c.n_kv_heads, 2u);
  EXPECT_EQ(c.head_dim, 16u);
  EXPECT_EQ(c.vocab, 300u);
  EXPECT_EQ(c.context, 2048u);
  EXPECT_EQ(c.rms_eps, 1e-5f);
  EXPECT_EQ(c.rope_theta, 50000.0);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_EQ(c.rope_pairs, RopePairs::kSplitHalves);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_THAT(c.eos, ElementsAre(2));
}

TEST_F(HfConfig, HasDefaultsForWhatMayBeAbsentOrNull) {
  json config = llama_json();
  for (const char* key : {"num_key_value_heads", "hidden_act", "rope_theta", "eos_token_id"}) config.erase(key);
  config["head_dim"] = nullptr;
  config["rope_scaling"] = nullptr;
  const ModelConfig c = read(config);
  EXPECT_EQ(c.n_kv_heads, 4u);
  EXPECT_EQ(c.head_dim, 16u);
  EXPECT_EQ(c.rope_theta, 10000.0);
  EXPECT_TRUE(c.eos.empty());
  EXPECT_EQ(read_with("head_dim", 32).head_dim, 32u);
  EXPECT_TRUE(read_with("tie_word_embeddings", true).tied_embeddings);
}

TEST_F(HfConfig, SeveralEosIdsAndGenerationConfigBeforeConfig) {
  EXPECT_THAT(read_with("eos_token_id", {2, 7, 299}).eos, ElementsAre(2, 7, 299));
  directory_.write("generation_config.json", R"({"eos_token_id": [5, 6]})");
  EXPECT_THAT(read(llama_json()).eos, ElementsAre(5, 6));
  directory_.write("generation_config.json", R"({"eos_token_id": 9})");
  EXPECT_THAT(read(llama_json()).eos, ElementsAre(9));
  directory_.write("generation_config.json", R"({"eos_token_id": null, "temperature": 0.6})");
  EXPECT_THAT(read(llama_json()).eos, ElementsAre(2));
  directory_.write("generation_config.json", R"({"eos_token_id": "two"})");
  EXPECT_EQ(error_of([&] { read(llama_json()); }),
            where() + "generation_config.json: eos_token_id: expected a token id or a list of them, got \"two\"");
}

TEST_F(HfConfig, RopeScalingOfBothForms) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  ModelConfig c = read_with("rope_scaling", llama3);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kLlama3);
  EXPECT_EQ(c.rope_scaling.factor, 32.0);
  EXPECT_EQ(c.rope_scaling.low_freq_factor, 1.0);
  EXPECT_EQ(c.rope_scaling.high_freq_factor, 4.0);
  EXPECT_EQ(c.rope_scaling.original_context, 8192.0);
  EXPECT_EQ(c.rope_theta, 50000.0);

  c = read_with("rope_scaling", {{"type", "linear"}, {"factor", 2}});  // the older key
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(c.rope_scaling.factor, 2.0);

  json config = llama_json();  // transformers 5
  config.erase("rope_theta");
  config["rope_parameters"] = {
      {"rope_type", "yarn"}, {"rope_theta", 1e6},        {"factor", 4.0},
      {"beta_fast", 24},     {"attention_factor", 1.25}, {"original_max_position_embeddings", 4096}};
  c = read(config);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_EQ(c.rope_scaling.beta_fast, 24.0);
  EXPECT_EQ(c.rope_scaling.beta_slow, 1.0);
  EXPECT_EQ(c.rope_scaling.attention_factor, 1.25);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 2e4}};
  c = read(config);
  EXPECT_EQ(c.rope_theta, 2e4);
  EXPECT_EQ(c.rope_scaling.kind, RopeScaling::Kind::kNone);
}

TEST_F(HfConfig, WrongRopeScalingIsNamed) {
  const std::string rope = where() + "config.json: rope_scaling";
  EXPECT_EQ(error_with("rope_scaling", "long"), rope + ": expected an object, got string");
  EXPECT_EQ(error_with("rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.0}}),
            rope + ": rope_type: expected default, linear, llama3 or yarn, got \"dynamic\"");
  EXPECT_EQ(error_with("rope_scaling", {{"rope_type", "linear"}}), rope + ": factor is missing");
  EXPECT_EQ(error_with("rope_scaling", {{"rope_type", "linear"}, {"factor", "2"}}),
            rope + ": factor: expected a number, got \"2\"");
  EXPECT_THAT(error_with("rope_scaling", {{"rope_type", "linear"}, {"factor", 0.0}}), HasSubstr("factor 0"));
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 4.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  EXPECT_EQ(error_with("rope_scaling", llama3), where() + "rope scaling: frequency factors 4 and 4 are not ascending");
  EXPECT_EQ(
      error_with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 0}}),
      where() + "rope scaling: original context 0 is not in [1, 1e9]");
}

TEST_F(HfConfig, MissingKeysAreNamed) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
                          "max_position_embeddings", "rms_norm_eps"})
    EXPECT_EQ(error_without(key), where() + "config.json: " + key + " is missing");
}

TEST_F(HfConfig, WrongTypesAreNamed) {
  const std::string file = where() + "config.json: ";
  for (const json& value : {json("64"), json(64.5), json(-1), json(true), json(1ull << 32)})
    EXPECT_EQ(error_with("hidden_size", value),
              file + "hidden_size: expected an unsigned 32-bit integer, got " + value.dump());
  EXPECT_EQ(error_with("num_hidden_layers", json::array({1})),
            file + "num_hidden_layers: expected an unsigned 32-bit integer, got array");
  EXPECT_EQ(error_with("rms_norm_eps", "1e-5"), file + "rms_norm_eps: expected a number, got \"1e-5\"");
  EXPECT_EQ(error_with("tie_word_embeddings", 1), file + "tie_word_embeddings: expected true or false, got 1");
  EXPECT_EQ(error_with("model_type", 5), file + "model_type: expected a string, got 5");
  for (const json& value : {json(-1), json(1.5), json("</s>"), json(1ull << 31)})
    EXPECT_EQ(error_with("eos_token_id", {2, value}),
              file + "eos_token_id: expected a token id or a list of them, got " + value.dump());
  EXPECT_THAT(error_of([&] { read(json::array()); }), HasSubstr("config.json: expected a JSON object, got array"));
}

TEST_F(HfConfig, ValuesOutOfRangeAreNamed) {
  EXPECT_EQ(error_with("hidden_size", 0), where() + "hidden size: expected 1 to 1048576, got 0");
  EXPECT_EQ(error_with("num_hidden_layers", 5000), where() + "layers: expected 1 to 4096, got 5000");
  EXPECT_EQ(error_with("num_attention_heads", 0), where() + "attention heads: expected 1 to 4096, got 0");
  EXPECT_EQ(error_with("num_key_value_heads", 0), where() + "KV heads: expected 1 to 4, got 0");
  EXPECT_EQ(error_with("num_key_value_heads", 3), where() + "4 heads are no multiple of 3 KV heads");
  EXPECT_EQ(error_with("head_dim", 15), where() + "head size 15 is not even");
  EXPECT_EQ(error_with("vocab_size", 1u << 25), where() + "vocabulary: expected 1 to 16777216, got 33554432");
  EXPECT_EQ(error_with("max_position_embeddings", 0), where() + "context length: expected 1 to 16777216, got 0");
  EXPECT_EQ(error_with("rope_theta", 0.5), where() + "rope theta 0.5 is not in [1, 1e12)");
  EXPECT_EQ(error_with("eos_token_id", 300), where() + "end-of-sequence id 300 of a vocabulary of 300");
}

TEST_F(HfConfig, WhatIsNotSupportedIsNamed) {
  const std::string file = where() + "config.json: ";
  EXPECT_EQ(error_with("model_type", "mamba"), file + "model_type: expected \"llama\", got \"mamba\"");
  EXPECT_EQ(error_without("model_type"), file + "model_type: expected \"llama\", got \"\"");
  EXPECT_EQ(error_with("hidden_act", "gelu"), file + "hidden_act: expected \"silu\", got \"gelu\"");
  EXPECT_THAT(error_with("pretraining_tp", 2), HasSubstr("pretraining_tp is set"));
}

class GgufConfig : public testing::Test {
 protected:
  // The metadata of a small Llama without the keys named.
  static GgufBuilder llama(const std::vector<std::string>& without = {}) {
    GgufBuilder file;
    const auto wanted = [&](const std::string& key) {
      return std::find(without.begin(), without.end(), key) == without.end();
    };
    if (wanted("general.architecture")) file.str("general.architecture", "llama");
    const std::pair<const char*, uint32_t> kNumbers[] = {{"embedding_length", 8},     {"feed_forward_length", 20},
                                                         {"block_count", 3},          {"context_length", 512},
                                                         {"attention.head_count", 2}, {"attention.head_count_kv", 1}};
    for (const auto& [key, value] : kNumbers)
      if (wanted(key)) file.u32(std::string("llama.") + key, value);
    if (wanted("eps")) file.pair("llama.attention.layer_norm_rms_epsilon", GgufType::kF32, le(1e-6f));
    file.tensor("token_embd.weight", 0, {8, 10}, std::string(320, '\0'));
    return file;
  }
  ModelConfig read(const GgufBuilder& file) {
    return read_config(Checkpoint::open(directory_.write("model.gguf", file.build())));
  }
  std::string error_with(const GgufBuilder& file) {
    return error_of([&] { read(file); });
  }
  std::string where() const { return (directory_.path() / "model.gguf").string() + ": "; }

  TempDirectory directory_;
};

TEST_F(GgufConfig, IsRead) {
  const ModelConfig c = read(llama()
                                 .pair("llama.rope.freq_base", GgufType::kF32, le(5e5f))
                                 .u32("tokenizer.ggml.eos_token_id", 2)
                                 .u32("tokenizer.ggml.eot_token_id", 9)
                                 .u32("tokenizer.ggml.eom_token_id", 10));
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.name, "model.gguf");
  EXPECT_EQ(c.hidden, 8u);
  EXPECT_EQ(c.ffn, 20u);
  EXPECT_EQ(c.n_layers, 3u);
  EXPECT_EQ(c.n_heads, 2u);
  EXPECT_EQ(c.n_kv_heads, 1u);
  EXPECT_EQ(c.head_dim, 4u);
  EXPECT_EQ(c.vocab, 10u);
  EXPECT_EQ(c.context, 512u);
  EXPECT_EQ(c.rms_eps, 1e-6f);
  EXPECT_EQ(c.rope_theta, 5e5);
  EXPECT_EQ(c.rope_pairs, RopePairs::kInterleaved);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_THAT(c.eos, ElementsAre(2, 9));  // 10 is none of the vocabulary
  const ModelConfig untied = read(llama().tensor("output.weight", 0, {8, 10}, std::string(320, '\0')));
  EXPECT_FALSE(untied.tied_embeddings);
  EXPECT_EQ(untied.rope_theta, 10000.0);
  EXPECT_EQ(read(llama({"attention.head_count_kv"})).n_kv_heads, 2u);
  EXPECT_EQ(read(llama().u32("llama.attention.key_length", 6)).head_dim, 6u);
}

TEST_F(GgufConfig, RopeScaling) {
  const auto scaled = [](const char* type) {
    return llama().str("llama.rope.scaling.type", type).pair("llama.rope.scaling.factor", GgufType::kF32, le(4.0f));
  };
  EXPECT_EQ(read(llama().str("llama.rope.scaling.type", "none")).rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_EQ(read(scaled("linear")).rope_scaling.kind, RopeScaling::Kind::kLinear);
  const ModelConfig yarn = read(scaled("yarn").u32("llama.rope.scaling.original_context_length", 128));
  EXPECT_EQ(yarn.rope_scaling.kind, RopeScaling::Kind::kYarn);
  EXPECT_EQ(yarn.rope_scaling.factor, 4.0);
  EXPECT_EQ(yarn.rope_scaling.original_context, 128.0);
  EXPECT_EQ(error_with(scaled("longrope")),
            where() + "llama.rope.scaling.type: expected none, linear or yarn, got \"longrope\"");
  EXPECT_THAT(error_with(scaled("yarn")), HasSubstr("llama.rope.scaling.original_context_length"));
}

TEST_F(GgufConfig, WrongMetadataIsNamed) {
  for (const char* key :
       {"embedding_length", "feed_forward_length", "block_count", "context_length", "attention.head_count"}) {
    const std::string error = error_with(llama({key}));
    EXPECT_THAT(error, HasSubstr(where()));
    EXPECT_THAT(error, HasSubstr(std::string("llama.") + key));
  }
  EXPECT_THAT(error_with(llama({"eps"})), HasSubstr("llama.attention.layer_norm_rms_epsilon"));
  EXPECT_THAT(error_with(llama({"general.architecture"})), HasSubstr("general.architecture"));
  EXPECT_EQ(error_with(llama({"general.architecture"}).str("general.architecture", "mamba")),
            where() + "general.architecture: expected \"llama\", got \"mamba\"");
  EXPECT_THAT(error_with(llama({"block_count"}).str("llama.block_count", "3")), HasSubstr("llama.block_count"));
  EXPECT_EQ(error_with(llama({"block_count"}).pair("llama.block_count", GgufType::kU64, le(uint64_t{1} << 32))),
            where() + "llama.block_count: expected at most 2^32 - 1, got 4294967296");
  EXPECT_EQ(error_with(llama({"block_count"}).u32("llama.block_count", 0)),
            where() + "layers: expected 1 to 4096, got 0");
  EXPECT_EQ(error_with(llama({"attention.head_count"}).u32("llama.attention.head_count", 0)),
            where() + "attention heads: expected 1 to 4096, got 0");
  EXPECT_EQ(error_with(llama().u32("llama.rope.dimension_count", 2)),
            where() + "llama.rope.dimension_count: expected the head size 4, got 2");
}

TEST(LoadModel, WritesThePlanOfTheFixture) {
  const Checkpoint checkpoint = Checkpoint::open(kTinyLlama);
  const Model model = load_model(checkpoint);
  EXPECT_EQ(model.config.name, "tiny-llama");
  EXPECT_EQ(model.plan.context(), 1024u);
  EXPECT_EQ(model.plan.vocab, 304u);
  EXPECT_EQ(model.plan.n_layers, 2u);
  EXPECT_EQ(model.plan.steps.size(), 1 + 2 * 9 + 3u);
  EXPECT_EQ(model.plan.weights.size(), checkpoint.tensors().size());
  EXPECT_EQ(model.plan.steps.front().name, "embed");
  EXPECT_GE(model.plan.find_step("layers.1.gate_up"), 0);
  EXPECT_EQ(load_model(checkpoint, 100).plan.context(), 100u);
}

TEST(LoadModel, RefusesAContextBeyondTheModels) {
  const Checkpoint checkpoint = Checkpoint::open(kTinyLlama);
  EXPECT_EQ(load_model(checkpoint, 1024).plan.context(), 1024u);
  EXPECT_EQ(error_of([&] { load_model(checkpoint, 1025); }),
            std::string(kTinyLlama) + ": context of 1025 positions asked for, the model has 1024");
}

TEST_F(HfConfig, TensorsThatDoNotFitTheConfigAreNamed) {
  std::filesystem::copy_file(std::string(kTinyLlama) + "/model.safetensors", directory_.path() / "model.safetensors",
                             std::filesystem::copy_options::overwrite_existing);
  json config = llama_json();
  config.update({{"intermediate_size", 192}, {"num_hidden_layers", 2}, {"vocab_size", 304}});
  const auto load_with = [&](const char* key, const json& value) {
    json changed = config;
    changed[key] = value;
    directory_.write("config.json", changed.dump());
    try {
      load_model(Checkpoint::open(directory_.path()));
      return std::string("(no error)");
    } catch (const Error& error) {
      return with_causes(error);
    }
  };
  EXPECT_EQ(load_with("hidden_size", 64), "(no error)");
  EXPECT_THAT(load_with("hidden_size", 128), HasSubstr("token_embd.weight expected shape [304, 128], got [304, 64]"));
  EXPECT_THAT(load_with("vocab_size", 303), HasSubstr("token_embd.weight expected shape [303, 64], got [304, 64]"));
  EXPECT_EQ(load_with("num_hidden_layers", 3), where() + "the weights do not fit the configuration: " + where() +
                                                   "tensor layers.2.attn_norm.weight is missing");
  EXPECT_THAT(load_with("num_key_value_heads", 4),
              HasSubstr("layers.0.qkv: stacked weight rows 128 != slot width 192"));
  EXPECT_THAT(
      load_with("intermediate_size", 160),
      HasSubstr("layers.0.gate_up: stacked weight rows 384 != slot width 320 (layers.0.ffn_gate.weight [192, 64], "
                "layers.0.ffn_up.weight [192, 64])"));
}

}  // namespace
}  // namespace llorch
