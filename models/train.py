#!/usr/bin/env python3
"""Makes the embedded story model from nothing: corpus, tokenizer, weights, model card. `--minutes` bounds the whole run; `--steps` fixes it."""

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from storymodel import corpus as corpora  # noqa: E402 (torch is imported only after the worker processes are gone)

BEGIN = time.time()
PEAK_LR, WARMUP = 3e-3, 150
RESERVE_S = 75  # kept for evaluation, export and samples


class Log:
    def __init__(self, path):
        self.file = open(path, "w")

    def __call__(self, text):
        line = f"[{time.time() - BEGIN:6.1f}s] {text}"
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("out", type=pathlib.Path, help="folder that receives the model folder, train.log and samples.txt")
    p.add_argument("--minutes", type=float, default=7.5, help="time for everything; the schedule follows the clock")
    p.add_argument("--steps", type=int, help="a fixed number of steps instead")
    p.add_argument("--stories", type=int, default=1_200_000)
    p.add_argument("--seed", default="llorch")
    p.add_argument("--batch", type=int, default=128, help="rows of 1024 tokens a step")
    p.add_argument("--processes", type=int, default=os.cpu_count())
    p.add_argument("--no-compile", action="store_true")
    p.add_argument("--smoke", action="store_true", help="everything, tiny: proves the script on a CPU in a minute")
    a = p.parse_args()
    if a.smoke:
        a.stories, a.batch, a.steps, a.no_compile = 4000, 2, a.steps or 8, True
    return a


def make_data(a, folder, log):
    """Returns (tokenizer, training corpus, held-out corpus)."""
    sample = corpora.texts(a.seed, min(a.stories, 80_000), a.processes)
    log(f"wrote {len(sample)} stories for the tokenizer")
    tokenizer = corpora.train_tokenizer(sample, 4096, folder / "tokenizer.json")
    size = tokenizer.get_vocab_size()
    if size % 64:  # the story world ran out of words to merge: every row of the embedding shall be a token
        tokenizer = corpora.train_tokenizer(sample, size - size % 64, folder / "tokenizer.json")
    log(f"tokenizer of {tokenizer.get_vocab_size()} tokens")
    train = corpora.Corpus(a.seed, a.stories, folder / "tokenizer.json", a.processes)
    heldout = corpora.Corpus(a.seed + "-heldout", 30 if a.smoke else 6000, folder / "tokenizer.json", a.processes, unseen_in=train)
    lengths = train.lengths
    log(f"corpus: {len(lengths)} distinct of {train.made} stories, {len(train.tokens)} tokens, mean {lengths.mean():.0f}, "
        f"99 % within {int(sorted(lengths)[int(len(lengths) * 0.99)])}, longest {lengths.max()}; held out {len(heldout.lengths)}")
    return tokenizer, train, heldout, sample


def lr_at(step, progress):
    """Linear warm-up in steps, then a cosine over progress 0..1 down to 1 % of the peak."""
    import math
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    return PEAK_LR * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def make_optimizer(model, cuda):
    import torch
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                             lr=PEAK_LR, betas=(0.9, 0.95), fused=cuda)


def compiled_or_plain(a, model, batch, context, device, log):
    """The compiled model if it compiles and runs one step here, else the plain one."""
    import torch
    if a.no_compile:
        return model
    try:
        fast = torch.compile(model)
        tokens = torch.zeros(batch, context, dtype=torch.long, device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = fast(tokens, tokens)
        loss.backward()
        model.zero_grad(set_to_none=True)
        log("compiled")
        return fast
    except Exception as e:  # any failure of the compiler only costs speed
        log(f"not compiled: {type(e).__name__}: {str(e)[:200]}")
        model.zero_grad(set_to_none=True)
        return model


def train_model(a, model, rows, device, log):
    """Trains on rows [n, 1025] in a seeded order. Returns (steps, mean loss of the last 100)."""
    import torch
    context = rows.shape[1] - 1
    data = torch.from_numpy(rows.astype("int16")).to(device)  # vocabulary < 32768; int64 would be 4 times the memory
    order = torch.Generator().manual_seed(1)
    fast = compiled_or_plain(a, model, a.batch, context, device, log)
    optimizer = make_optimizer(model, device == "cuda")
    begin, deadline = time.time(), BEGIN + a.minutes * 60 - RESERVE_S
    step, losses, queue = 0, [], []
    while True:
        progress = step / a.steps if a.steps else (time.time() - begin) / max(1.0, deadline - begin)
        if progress >= 1:
            break
        if len(queue) < a.batch:
            queue = torch.randperm(len(data), generator=order).tolist()
        picked = torch.tensor([queue.pop() for _ in range(a.batch)], device=device)
        batch = data[picked].long()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, progress)
        with torch.autocast(device, torch.bfloat16):
            loss = fast(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        step += 1
        if step % (2 if a.smoke else 20) == 0:
            value = loss.item()  # waits for the device: the clock then tells the truth
            if step % (2 if a.smoke else 200) == 0:
                rate = step * a.batch * context / (time.time() - begin)
                log(f"step {step} progress {progress:.3f} loss {value:.4f} {rate / 1e6:.2f} M tokens/s, epoch {step * a.batch / len(data):.2f}")
    return step, torch.stack(losses[-100:]).mean().item()


def heldout_loss(model, rows, device):
    import torch
    total = 0.0
    with torch.no_grad():
        for at in range(0, len(rows), 16):
            batch = torch.from_numpy(rows[at:at + 16].astype("int64")).to(device)
            total += model(batch[:, :-1], batch[:, 1:]).item() * len(batch)
    return total / len(rows)


def main():
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    log = Log(a.out / "train.log")
    folder = a.out / "story-7m"
    folder.mkdir(exist_ok=True)
    tokenizer, train, heldout, sample = make_data(a, folder, log)

    import torch
    from storymodel import card, export
    from storymodel.llama import Llama, Shape
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    export.check_tokenizer(tokenizer, sample[:200])
    shape = Shape(vocab=tokenizer.get_vocab_size())
    model = Llama(shape).to(device)
    params = sum(p.numel() for p in model.parameters())
    width = (256 if a.smoke else shape.context) + 1
    rows = train.rows(width)
    log(f"{params} parameters on {torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}, torch {torch.__version__}, {len(rows)} rows")
    steps, train_loss = train_model(a, model, rows, device, log)
    log(f"trained {steps} steps (--steps {steps} repeats them), last losses {train_loss:.4f}")

    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16))
    model.eval()
    loss = heldout_loss(model, heldout.rows(width), device)
    log(f"held-out loss {loss:.4f} nats per token with bfloat16 weights")
    export.write_model(folder, model, tokenizer)
    probe = torch.from_numpy(rows[:1, :width - 1].astype("int64")).to(device)
    loaded, difference = export.check_loads(folder, model, probe, device)
    log(f"transformers loads it; largest logit difference {difference:.2e}")
    told = export.samples(loaded, tokenizer, 1 if a.smoke else 10)
    (a.out / "samples.txt").write_text("\n\n".join(f"{h}\n{t}" for h, t in told) + "\n")
    facts = dict(name=folder.name, params=params, layers=shape.layers, hidden=shape.hidden, heads=shape.heads, kv=shape.kv_heads, dim=shape.head_dim,
                 ffn=shape.ffn, context=shape.context, vocab=shape.vocab, command=f"python3 models/train.py OUT --stories {a.stories} --steps {steps} --batch {a.batch}",
                 stories=len(train.lengths), made=train.made, seed=a.seed, tokens=len(train.tokens), steps=steps, step_tokens=a.batch * (width - 1),
                 seen=steps * a.batch * (width - 1), train_loss=train_loss, heldout_loss=loss, heldout=len(heldout.lengths),
                 device=torch.cuda.get_device_name() + " GPU" if device == "cuda" else "CPU", minutes=(time.time() - BEGIN) / 60)
    card.write_card(folder / "README.md", facts, told)
    log("done")


if __name__ == "__main__":
    main()
