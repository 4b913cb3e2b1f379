#!/usr/bin/env python3
"""Writes k-quants.gguf, a small seeded random model of all types that GGUF files mix, and its golden file.

    python tests/golden/make_quantized.py                   # needs numpy and gguf; seconds
    python tests/golden/make_quantized.py TYPE OUT.gguf     # models/story-7m in q4_k, q5_0, ... instead

The golden file is of float64_llama.py with the weights that the gguf package reads from the file, so it knows neither our block layouts nor
our arithmetic: greedy tokens, margins (top-1 minus top-2 logit) and logits of the last prompt position.
"""

import json
import pathlib
import random
import sys

import gguf
import numpy
from gguf import GGMLQuantizationType as Type

HERE = pathlib.Path(__file__).resolve().parent
STORY = HERE.parent.parent / "models/story-7m"
sys.path[:0] = [str(HERE)]
from float64_llama import last_logits  # noqa: E402
from k_quants import quantize  # noqa: E402

LENGTHS, STEPS = (1, 5, 33), 16
CONFIG = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 128, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
    "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
}
NAMES = {  # GGUF: Hugging Face, and the type in each layer; columns of attn_output are no multiple of 256
    "attn_q": ("self_attn.q_proj", (Type.Q4_K, Type.Q5_K)), "attn_k": ("self_attn.k_proj", (Type.Q5_K, Type.Q4_K)),
    "attn_v": ("self_attn.v_proj", (Type.Q6_K, Type.Q4_K)), "attn_output": ("self_attn.o_proj", (Type.Q5_0, Type.Q5_1)),
    "ffn_gate": ("mlp.gate_proj", (Type.Q4_K, Type.Q5_K)), "ffn_up": ("mlp.up_proj", (Type.Q5_K, Type.Q4_K)),
    "ffn_down": ("mlp.down_proj", (Type.Q6_K, Type.Q5_K)),
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def permuted(w, heads):
    """Rows of q and k as converters to GGUF order them: pairs side by side instead of in halves."""
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def unpermuted(w, heads):
    return w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path, config, weights, types, tokenizer=None):
    """weights: float32 by Hugging Face name; types(GGUF name, layer). Returns what the file says, as float64 by Hugging Face name."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["bos_token_id"])
    if tokenizer:
        tokenizer(writer)
    read = {}

    def vector(name, source):
        writer.add_tensor(name + ".weight", weights[source])
        read[source] = weights[source].astype(numpy.float64)

    def matrix(name, source, kind, heads=None):
        w = weights[source]
        data = quantize(permuted(w, heads) if heads else w, kind)
        writer.add_tensor(name + ".weight", data, raw_dtype=kind)
        w = gguf.quants.dequantize(data, kind).astype(numpy.float64)
        read[source] = unpermuted(w, heads) if heads else w

    matrix("token_embd", "model.embed_tokens.weight", types("token_embd", 0))
    for i in range(config["num_hidden_layers"]):
        for name, source in NORMS.items():
            vector(f"blk.{i}.{name}", f"model.layers.{i}.{source}.weight")
        for name, (source, _) in NAMES.items():
            heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name)
            matrix(f"blk.{i}.{name}", f"model.layers.{i}.{source}.weight", types(name, i), heads)
    vector("output_norm", "model.norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


def random_weights(config):
    """Scaled so that attention weighs many positions and logits have a spread of a few units."""
    draw = numpy.random.default_rng(20240502)
    hidden, ffn, q = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q),
              "gate_proj": (ffn, hidden), "up_proj": (ffn, hidden), "down_proj": (hidden, ffn)}
    w = {"model.embed_tokens.weight": draw.standard_normal((config["vocab_size"], hidden)) * 0.2}
    for i in range(config["num_hidden_layers"]):
        for source, _ in NAMES.values():
            rows, cols = shapes[source.split(".")[1]]
            w[f"model.layers.{i}.{source}.weight"] = draw.standard_normal((rows, cols)) * 1.2 / cols**0.5
        for source in NORMS.values():
            w[f"model.layers.{i}.{source}.weight"] = 1 + 0.2 * draw.standard_normal(hidden)
    w["model.norm.weight"] = 1 + 0.2 * draw.standard_normal(hidden)
    return {name: value.astype(numpy.float32) for name, value in w.items()}


def make_case(weights, tokens):
    logits, picked, margins = [], [], []
    while len(picked) < STEPS and (not picked or picked[-1] != CONFIG["eos_token_id"]):
        logits.append(last_logits(CONFIG, weights, tokens + picked))
        top = numpy.sort(logits[-1])[-2:]
        picked.append(int(logits[-1].argmax()))
        margins.append(round(float(top[1] - top[0]), 5))
    exact, high = logits[0], logits[0].max()
    return {
        "n_prompt": len(tokens), "prompt_tokens": tokens, "greedy_tokens": picked, "margins": margins, "float32_error": 0.0,
        "f16_kv_shift": float(f"{abs(last_logits(CONFIG, weights, tokens, kv_f16=True) - exact).max():.3g}"),
        "logits": {"ids": list(range(len(exact))), "values": [round(float(x), 6) for x in exact], "mean": round(float(exact.mean()), 6),
                   "std": round(float(exact.std()), 6), "logsumexp": round(float(high + numpy.log(numpy.exp(exact - high).sum())), 6)},
    }


def write_golden():
    weights = write_gguf(HERE / "k-quants.gguf", CONFIG, random_weights(CONFIG), lambda name, layer: NAMES[name][1][layer] if name in NAMES else Type.Q6_K)
    draw = random.Random("k-quants")
    cases = [make_case(weights, [draw.randrange(2, CONFIG["vocab_size"]) for _ in range(length)]) for length in LENGTHS]
    head = {"model": "tests/golden/k-quants.gguf", "made_with": f"float64_llama.py, numpy {numpy.__version__}"}
    lines = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / "k-quants.golden.json").write_text(json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n")
    for case in cases:
        print(f"{case['n_prompt']}: {len(case['greedy_tokens'])} tokens, least margin {min(case['margins'])}, logit std {case['logits']['std']}, "
              f"f16 KV shift {case['f16_kv_shift']}")


def write_story(kind, path):
    config = json.loads((STORY / "config.json").read_text())
    bpe = json.loads((STORY / "tokenizer.json").read_text())["model"]
    header_bytes = int.from_bytes((STORY / "model.safetensors").read_bytes()[:8], "little")
    data = (STORY / "model.safetensors").read_bytes()
    weights = {}
    for name, entry in json.loads(data[8:8 + header_bytes]).items():
        if name != "__metadata__":
            begin, end = (8 + header_bytes + x for x in entry["data_offsets"])
            bits = numpy.frombuffer(data[begin:end], dtype="<u2").astype(numpy.uint32) << 16  # bf16
            weights[name] = bits.view(numpy.float32).reshape(entry["shape"])

    def tokenizer(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]])
        writer.add_add_bos_token(True)

    write_gguf(path, config, weights, lambda name, layer: Type[kind.upper()], tokenizer)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write_story(*sys.argv[1:])
    else:
        write_golden()
