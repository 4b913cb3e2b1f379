"""Writes the model folder, reads it back with transformers, and tells sample stories."""

import json

import torch
from safetensors.torch import save_file

from .corpus import BOS, EOS

PROMPTS = ["The little fox", "One rainy morning,", "In a small village by the sea", "There was once a girl named Mia", "The old lighthouse keeper",
           "Tell me a story about a brave mouse."]


def write_model(folder, model, tokenizer):
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    save_file(model.hf_state(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)

    def dump(name, value):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")

    dump("config.json", model.shape.config(bos, eos))
    dump("generation_config.json", {"bos_token_id": bos, "eos_token_id": eos, "do_sample": True, "temperature": 0.7, "max_new_tokens": 220})
    dump("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "add_bos_token": True,
                                   "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": model.shape.context})


def check_tokenizer(tokenizer, texts):
    """Every text must come back from its tokens byte for byte."""
    for text in [*texts, "Grüße, 世界! \U0001f98a\n\n  two  spaces\ttab", "\x00\x7f", "CAPS and 12345.67"]:
        back = tokenizer.decode(tokenizer.encode(text).ids)
        if back != text:
            raise AssertionError(f"tokenizer does not round-trip: {text!r} -> {back!r}")


def check_loads(folder, model, tokens, device):
    """The folder in transformers gives the logits of the rounded weights here; returns that model in float32 and the largest difference."""
    from transformers import LlamaForCausalLM

    loaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    with torch.no_grad():
        difference = (loaded(tokens).logits - model(tokens)).abs().max().item()
    if not difference < 0.02:
        raise AssertionError(f"transformers' logits differ by {difference}")
    return loaded, difference


@torch.no_grad()
def continue_text(loaded, tokenizer, prompt, seed, temperature=0.7, limit=220):
    """(text with the prompt, number of new tokens, whether it ended by itself)"""
    device = loaded.device
    eos = tokenizer.token_to_id(EOS)
    ids = tokenizer.encode(prompt).ids
    start = len(ids)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    past, step = None, torch.tensor([ids], device=device)
    while len(ids) - start < limit:
        out = loaded(step, past_key_values=past, use_cache=True)
        past = out.past_key_values
        probabilities = torch.softmax(out.logits[0, -1].float().cpu() / temperature, -1)
        token = int(torch.multinomial(probabilities, 1, generator=generator))
        if token == eos:
            return tokenizer.decode(ids), len(ids) - start, True
        ids.append(token)
        step = torch.tensor([[token]], device=device)
    return tokenizer.decode(ids), limit, False


def samples(loaded, tokenizer, count=10):
    """Sample stories as (heading, text)."""
    told = []
    for seed in range(42, 42 + count):
        told.append((seed, "Once upon a time"))
    for i, prompt in enumerate(PROMPTS[:count]):
        told.append((i, prompt))
    result = []
    for seed, prompt in told:
        text, new, ended = continue_text(loaded, tokenizer, prompt, seed)
        result.append((f'"{prompt}", seed {seed}: {new} tokens, {"ended" if ended else "cut off"}', text))
    return result
