"""Writes the small seeded random models beside this script: corners of the Llama configuration that no other fixture has."""

import json

import torch
from safetensors.torch import save_file

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
MODELS = {  # name: (dtype, what differs from a plain config)
    "llama3-rope-f16": (torch.float16, dict(
        hidden_size=64, intermediate_size=80, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=112, rope_scaling=LLAMA3)),
    "linear-rope-bias-f32": (torch.float32, dict(
        hidden_size=40, intermediate_size=64, num_attention_heads=2, num_key_value_heads=2, head_dim=24, vocab_size=80, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=True, rope_scaling={"rope_type": "linear", "factor": 4.0})),
    "one-kv-head-bf16": (torch.bfloat16, dict(
        hidden_size=48, intermediate_size=128, num_attention_heads=3, num_key_value_heads=1, head_dim=16, vocab_size=128, rope_theta=500000.0)),
}


def config_of(dtype, differing):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": None, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": str(dtype).removeprefix("torch."), **differing,
    }


def weights_of(config, seed):
    """Scaled so that attention weighs many positions and logits have a spread of a few units."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    w = {}

    def linear(name, rows, cols, bias=False):
        w[name + ".weight"] = torch.randn(rows, cols, generator=generator) * 1.2 / cols**0.5
        if bias:
            w[name + ".bias"] = torch.randn(rows, generator=generator) * 0.3

    def norm(name):
        w[name + ".weight"] = 1 + 0.2 * torch.randn(hidden, generator=generator)

    w["model.embed_tokens.weight"] = torch.randn(vocab, hidden, generator=generator) * 0.5
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        norm(layer + "input_layernorm")
        for name, rows, cols in (("q_proj", q, hidden), ("k_proj", kv, hidden), ("v_proj", kv, hidden), ("o_proj", hidden, q)):
            linear(layer + "self_attn." + name, rows, cols, config["attention_bias"])
        norm(layer + "post_attention_layernorm")
        for name, rows, cols in (("gate_proj", ffn, hidden), ("up_proj", ffn, hidden), ("down_proj", hidden, ffn)):
            linear(layer + "mlp." + name, rows, cols, config["mlp_bias"])
    norm("model.norm")
    if not config["tie_word_embeddings"]:
        linear("lm_head", vocab, hidden)
        w["lm_head.weight"] *= 2
    return w


def write_models(folder):
    for seed, (name, (dtype, differing)) in enumerate(MODELS.items()):
        config = config_of(dtype, differing)
        out = folder / name
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        w = {key: value.to(dtype).contiguous() for key, value in weights_of(config, seed).items()}
        save_file(w, out / "model.safetensors", metadata={"format": "pt"})
        (out / "model.safetensors").chmod(0o644)
