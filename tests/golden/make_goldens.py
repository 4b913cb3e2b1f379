#!/usr/bin/env python3
"""Writes the small models of make_models.py and, for each model below, NAME.golden.json: greedy tokens and logits of transformers.

    python tests/golden/make_goldens.py            # needs numpy, safetensors, tokenizers, torch, transformers; a few minutes

Greedy tokens and margins (top-1 minus top-2 logit) are of transformers in float32 with eager attention. The logits of the last prompt position
are of float64_llama.py, and `float32_error` is how far transformers' float32 is from them: the unit of rounding for this model and prompt.
`f16_kv_shift` is how far float64 logits move when keys and values are rounded to f16. A case whose two oracles disagree is not written.
"""

import json
import pathlib
import random
import sys

import numpy
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "models")]
from float64_llama import last_logits  # noqa: E402
from make_models import MODELS, write_models  # noqa: E402
from storyworld.generate import make_stories  # noqa: E402

LENGTHS, STEPS, TOP = (1, 2, 5, 33, 513), 32, 64
SUBJECTS = ["models/story-7m", "tests/fixtures/tiny-llama", *(f"tests/golden/{name}" for name in MODELS)]


def prompt_tokens(folder, config, length):
    """Held-out stories where the model has a tokenizer made for them, else seeded random ids."""
    if folder.name != "story-7m":
        draw = random.Random(f"{folder.name} {length}")
        return [draw.randrange(2, config["vocab_size"]) for _ in range(length)]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = []
    for story in make_stories(f"golden {length}", 0, 8):  # each begins with BOS and ends with EOS, as in training
        ids += tokenizer.encode(story).ids + [config["eos_token_id"]]
    return ids[:length]


def float64_weights(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name).double().numpy() for name in file.keys()}


@torch.no_grad()
def greedy(model, tokens, eos, context):
    """(logits of the last prompt position, tokens up to and with EOS, margins)"""
    out = model(torch.tensor([tokens]), use_cache=True)
    first, picked, margins = out.logits[0, -1], [], []
    while True:
        top = out.logits[0, -1].topk(2)
        picked.append(int(top.indices[0]))
        margins.append(round(float(top.values[0] - top.values[1]), 5))
        if len(picked) == STEPS or picked[-1] == eos or len(tokens) + len(picked) == context:
            return first.double().numpy(), picked, margins
        out = model(torch.tensor([picked[-1:]]), past_key_values=out.past_key_values, use_cache=True)


def make_case(config, weights, model, tokens):
    exact = last_logits(config, weights, tokens)
    float32, picked, margins = greedy(model, tokens, config["eos_token_id"], config["max_position_embeddings"])
    error = float(abs(float32 - exact).max())
    if not error < 1e-3 * exact.std():
        raise AssertionError(f"transformers and float64_llama.py differ by {error}")
    order = numpy.argsort(-exact)[: len(exact) if len(exact) <= 512 else TOP]
    high = exact.max()
    return {
        "n_prompt": len(tokens), "prompt_tokens": tokens, "greedy_tokens": picked, "margins": margins, "float32_error": float(f"{error:.3g}"),
        "f16_kv_shift": float(f"{abs(last_logits(config, weights, tokens, kv_f16=True) - exact).max():.3g}"),
        "logits": {"ids": order.tolist(), "values": [round(float(exact[i]), 6) for i in order], "mean": round(float(exact.mean()), 6),
                   "std": round(float(exact.std()), 6), "logsumexp": round(float(high + numpy.log(numpy.exp(exact - high).sum())), 6)},
    }


def write_golden(path):
    folder = ROOT / path
    config = json.loads((folder / "config.json").read_text())
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    weights = float64_weights(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = [make_case(config, weights, model, prompt_tokens(folder, config, length)) for length in LENGTHS]
    head = {"model": path, "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, eager attention; logits in float64"}
    lines = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    (HERE / f"{folder.name}.golden.json").write_text(json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n")
    for case in cases:
        print(f"{path} {case['n_prompt']}: {len(case['greedy_tokens'])} tokens, least margin {min(case['margins'])}, logit std {case['logits']['std']}, "
              f"float32 error {case['float32_error']}, f16 KV shift {case['f16_kv_shift']}", flush=True)


def main():
    torch.set_num_threads(2)
    write_models(HERE)
    for path in SUBJECTS:
        write_golden(path)


if __name__ == "__main__":
    main()
