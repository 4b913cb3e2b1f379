#include "format/tensor_table.h"

#include <gtest/gtest.h>

#include "format/files_for_test.h"

namespace llorch {
namespace {

TEST(CanonicalName, UnitesBothContainers) {
  EXPECT_EQ(canonical_name("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(canonical_name("model.norm.weight"), "output_norm.weight");
  EXPECT_EQ(canonical_name("lm_head.weight"), "output.weight");
  EXPECT_EQ(canonical_name("token_embd.weight"), "token_embd.weight");
  EXPECT_EQ(canonical_name("rope_freqs.weight"), "rope_freqs.weight");
  const std::pair<const char*, const char*> kParts[] = {
      {"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},   {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  for (const auto& [theirs, ours] : kParts) {
    for (const std::string suffix : {".weight", ".bias"}) {
      const std::string canonical = "layers.17." + (ours + suffix);
      EXPECT_EQ(canonical_name("model.layers.17." + (theirs + suffix)), canonical);
      EXPECT_EQ(canonical_name("layers.17." + (theirs + suffix)), canonical);
      EXPECT_EQ(canonical_name("blk.17." + (ours + suffix)), canonical);
      EXPECT_EQ(canonical_name(canonical), canonical);
    }
  }
}

TEST(CanonicalName, LeavesUnknownNamesAlone) {
  for (const std::string name :
       {"", "model.", "layers.", "layers.1", "layers..x", "model.layers.x.input_layernorm.weight",
        "model.layers.1.self_attn.rotary_emb.inv_freq", "model.layers.1.input_layernorm.scale", "blk.", "blk.x.y",
        "lm_head.bias", "model.lm_head.weight"}) {
    EXPECT_EQ(canonical_name(name), name);
  }
}

TEST(TensorTable, FindsNothingUnderAnAbsentName) { EXPECT_EQ(TensorTable().find("a"), nullptr); }

TEST(TensorTable, RefusesANameTwice) {
  TensorTable table;
  table.add(Tensor{"a", DType::kF32, {0}, {}}, "x.gguf");
  const std::string expected = "y.gguf: tensor a stands twice";
  EXPECT_EQ(error_of([&] { table.add(Tensor{"a", DType::kF32, {0}, {}}, "y.gguf"); }), expected);
  EXPECT_EQ(error_of([&] { table.add(UnsupportedTensor{"a", "I64", {}, 0, "y.gguf"}); }), expected);
}

TEST(TensorTable, NamesFileTypeAndTensorOfAnUnsupportedOne) {
  TensorTable table;
  table.add(UnsupportedTensor{"a", "Q2_K", {256}, 0, "x.gguf"});
  EXPECT_EQ(
      error_of([&] { table.find("a"); }),
      "x.gguf: tensor a: expected type F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K, got Q2_K");
  EXPECT_TRUE(table.tensors().empty());
  EXPECT_EQ(table.unsupported().size(), 1u);
}

}  // namespace
}  // namespace llorch
