"""The model card."""

CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# {name}

A small story model: {params:,} parameters in the Llama architecture ({layers} layers, hidden size {hidden}, {heads} query heads and {kv} key-value
heads of {dim}, SwiGLU of {ffn}, RMSNorm, rotary positions, tied embeddings), bfloat16, context {context}, byte-level BPE of {vocab}
tokens. Each text begins with `<|bos|>` (the tokenizer adds it) and a story ends with `<|eos|>`.

## What it is, and what it is not
It tells short stories for children, of 70 to 150 words, in plain English: somebody wants something or is in trouble, things happen, and there
is an ending. Prompts that suit it are openings ("Once upon a time", "The little fox", "One rainy morning,") and wishes of one form ("Tell me a
story about a brave mouse."). It exists so that llorch can run, be tested and be tried at once, offline. It knows nothing but the words and
events of some two dozen plots: it follows no other instructions, answers no questions, and a prompt from outside that world leads it astray.
It sometimes confuses who did what, and a few phrases of its grammar are flawed ("there was ginger biscuits"). License: Apache-2.0, like the project.

## How it was made
All of its text comes from the simulator in `models/storyworld`, where plots act on a world of characters, places and things and a grammar
tells what happened; no outside text was used. One text in twenty-five is only
the later part of a story. `models/train.py` makes the corpus and the tokenizer, the same each time, and the weights, the same up to the
rounding of the device:

    {command}

| | |
| --- | --- |
| stories | {stories:,} distinct ones of {made:,} made (seed `{seed}`) |
| tokens in the corpus | {tokens:,} |
| steps x tokens per step | {steps:,} x {step_tokens:,} = {seen:,} |
| training loss at the end | {train_loss:.4f} nats per token |
| held-out loss, bfloat16 weights | {heldout_loss:.4f} nats per token ({heldout:,} stories of another seed, none in the corpus) |
| machine, time | one {device}, {minutes:.1f} minutes in all |

Much of the held-out loss is the free choice of who, where and what, which no model could predict.

## Stories
Temperature 0.7, nothing chosen by hand; seeds are those of PyTorch's CPU generator.

{samples}
"""


def write_card(path, facts, samples):
    told = "\n\n".join(f"**{heading}**\n\n> {text}" for heading, text in samples)
    path.write_text(CARD.format(**facts, samples=told))
