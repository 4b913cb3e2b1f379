#!/usr/bin/env python3
"""Writes what Hugging Face transformers makes of given tokens as a trace for `llorch diff`: an outside reference, by hooks on its modules.

    python tests/golden/outside_trace.py MODEL 1,15,99,7 out.safetensors --decode 1      # needs torch, transformers, safetensors; gguf for GGUF

MODEL is a folder of config.json and model.safetensors, or a GGUF file. --dtype is that of the arithmetic. --products rounds what each matrix
is fed to 16 bits, and queries and keys to f16, and calls the side `fast`: what tensor cores do, with sums in float32.
"""

import argparse
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama


def load(path, dtype):
    where = (path, {}) if path.suffix != ".gguf" else (path.parent, {"gguf_file": path.name})
    return AutoModelForCausalLM.from_pretrained(where[0], dtype=dtype, attn_implementation="eager", **where[1]).eval()


@torch.no_grad()
def steps_of(model, tokens, first_logits, products, interleaved):
    """{step: [rows, width]} by the plan's names, positions 0 .. n - 1; from `gather` on the rows of positions first_logits and later."""
    seen, rotated = {}, []
    round_ = (lambda x: x.to(products).to(x.dtype)) if products else (lambda x: x)

    def after(module, name):
        module.register_forward_hook(lambda _, args, out: seen.__setitem__(name, out[0] if isinstance(out, tuple) else out))

    def before(module, name):
        module.register_forward_pre_hook(lambda _, args: seen.__setitem__(name, args[0]))

    def rotate(q, k, *rest, **options):
        rotated.append([x.transpose(1, 2).flatten(2) for x in plain(q, k, *rest, **options)])
        return tuple(x.half().to(x.dtype) if products else x for x in plain(q, k, *rest, **options))

    plain, modeling_llama.apply_rotary_pos_emb = modeling_llama.apply_rotary_pos_emb, rotate
    after(model.model.embed_tokens, "embed")
    for i, layer in enumerate(model.model.layers):
        attention, ffn, name = layer.self_attn, layer.mlp, f"layers.{i}."
        after(layer.input_layernorm, name + "attn_norm")
        for part in "qkv":
            after(getattr(attention, part + "_proj"), name + part)
        before(attention.o_proj, name + "attn")
        before(layer.post_attention_layernorm, name + "attn_out")  # the residual so far
        after(layer.post_attention_layernorm, name + "ffn_norm")
        after(ffn.gate_proj, name + "gate")
        after(ffn.up_proj, name + "up")
        before(ffn.down_proj, name + "act")
        after(layer, name + "ffn_out")
    before(model.model.norm, "gather")
    after(model.model.norm, "output_norm")
    if products:  # after those that look
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, args: (round_(args[0]),))
    seen["logits"] = model(torch.tensor([tokens]), use_cache=False).logits
    modeling_llama.apply_rotary_pos_emb = plain

    def in_file_order(x):  # GGUF files have the two halves of a head's rows interleaved
        half = model.config.head_dim // 2
        return x.unflatten(2, (-1, 2, half)).transpose(3, 4).flatten(2) if interleaved else x

    for i, (q, k) in enumerate(rotated):
        name = f"layers.{i}."
        v = seen[name + "v"]
        seen[name + "qkv"] = torch.cat([in_file_order(seen.pop(name + "q")), in_file_order(seen.pop(name + "k")), seen.pop(name + "v")], -1)
        seen[name + "rope_append"] = torch.cat([in_file_order(q), in_file_order(k), v], -1)
        seen[name + "gate_up"] = torch.cat([seen.pop(name + "gate"), seen.pop(name + "up")], -1)
    for name in ("gather", "output_norm", "logits"):
        seen[name] = seen[name][:, first_logits:]
    return {name: x[0].float().clone(memory_format=torch.contiguous_format) for name, x in seen.items()}


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("model", type=pathlib.Path)
    parse.add_argument("tokens")
    parse.add_argument("out")
    parse.add_argument("--decode", type=int, default=0, help="how many of the last tokens llorch decodes one at a time")
    parse.add_argument("--dtype", default="float32", help="float32, bfloat16, float64")
    parse.add_argument("--products", help="float16 or bfloat16")
    args = parse.parse_args()
    tokens = [int(token) for token in args.tokens.split(",")]
    n_prompt = len(tokens) - args.decode
    products = getattr(torch, args.products) if args.products else None
    steps = steps_of(load(args.model, getattr(torch, args.dtype)), tokens, n_prompt - 1, products, args.model.suffix == ".gguf")
    metadata = {"llorch_trace": "1", "backend": f"transformers, {args.dtype}", "tokens": args.tokens, "n_prompt": str(n_prompt), "numerics": "outside"}
    if args.dtype != "bfloat16":
        metadata["kv_dtype"] = "f32"  # what is not said is not held against it
    if args.products:
        metadata.update(numerics="fast", device=f"{args.products} products", **dict.fromkeys(["model", "model_hash", "plan_hash", "build", "steps"], ""))
    save_file(steps, args.out, metadata)


if __name__ == "__main__":
    main()
