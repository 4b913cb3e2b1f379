#!/usr/bin/env python3
"""Writes a GGUF of TinyLlama-1.1B's shape with random weights, for `llorch load` and for measuring other programs.

Usage: make-random-gguf.py f16|q8_0|q4_0|q4_k|q6_k|q4_k_m FILE        (docs/performance.md says how it is used)

The values are those of a plausible network (normal, small scales), so that no program meets NaN or subnormals. The
vocabulary is 32000 invented pieces: token ids go in, logits come out.
"""
import random
import statistics
import struct
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 2048, 22, 32, 4, 5632, 32000, 2048
EPSILON, DEVIATION, ALIGNMENT = 1e-5, 0.02, 32
# Ids of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
F32, F16, Q4_0, Q8_0, Q4_K, Q6_K = 0, 1, 2, 8, 12, 14
U32, I32, FLOAT, STRING, ARRAY = 4, 5, 6, 8, 9
KINDS = {"f16": (F16, 1), "q8_0": (Q8_0, 7), "q4_0": (Q4_0, 2), "q4_k": (Q4_K, 14), "q6_k": (Q6_K, 18), "q4_k_m": (Q4_K, 15)}
# Elements of a block, and its bytes in file order: a float is a binary16, a number as many random bytes.
BLOCKS = {
    Q8_0: (32, (DEVIATION / 64, 32)),
    Q4_0: (32, (DEVIATION / 4, 16)),
    Q4_K: (256, (DEVIATION / 4 / 32, DEVIATION * 2 / 32, 12, 128)),
    Q6_K: (256, (128, 64, 16, DEVIATION / 16 / 64)),
}
# The high bytes of binary16 values at 256 steps of the normal distribution; any low byte goes with them.
NORMAL = bytes(struct.pack("<e", DEVIATION * statistics.NormalDist().inv_cdf((i + 0.5) / 256))[1] for i in range(256))
source = random.Random(1)


def random_bytes(n):
    return source.getrandbits(8 * n).to_bytes(n, "little")


def type_of(kind, name):
    """As llorch bench: of q4_k_m, llama.cpp's recipe has Q6_K for the head, and for attn_v and ffn_down in half of the layers."""
    if "norm" in name:
        return F32
    if kind == "q4_k_m" and name == "output.weight":
        return Q6_K
    if kind == "q4_k_m" and ("attn_v" in name or "ffn_down" in name):
        layer, eighth = int(name.split(".")[1]), LAYERS // 8
        if layer < eighth or layer >= 7 * LAYERS // 8 or (layer - eighth) % 3 == 2:
            return Q6_K
    return KINDS[kind][0]


def block_bytes(parts):
    return sum(2 if isinstance(part, float) else part for part in parts)


def size_of(quantization, elements):
    if quantization in (F32, F16):
        return elements * (4 if quantization == F32 else 2)
    per_block, parts = BLOCKS[quantization]
    return elements // per_block * block_bytes(parts)


def values(quantization, elements):
    """Norm weights are 1."""
    if quantization == F32:
        return struct.pack("<f", 1.0) * elements
    if quantization == F16:
        data = bytearray(2 * elements)
        data[0::2] = random_bytes(elements)
        data[1::2] = random_bytes(elements).translate(NORMAL)
        return data
    per_block, parts = BLOCKS[quantization]
    blocks, stride, at = elements // per_block, block_bytes(parts), 0
    data = bytearray(random_bytes(blocks * stride))
    for part in parts:
        if isinstance(part, float):
            low, high = struct.pack("<e", part)
            data[at::stride], data[at + 1::stride] = bytes([low]) * blocks, bytes([high]) * blocks
        at += 2 if isinstance(part, float) else part
    return data


def tensors(kind):
    """(name, type, rows, columns) in file order; rows 0: one row of norm weights."""
    kv = KV_HEADS * (HIDDEN // HEADS)
    shapes = [("token_embd", VOCAB, HIDDEN)]
    for layer in range(LAYERS):
        shapes += [(f"blk.{layer}.{name}", rows, columns) for name, rows, columns in (
            ("attn_norm", 0, HIDDEN), ("attn_q", HIDDEN, HIDDEN), ("attn_k", kv, HIDDEN), ("attn_v", kv, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN), ("ffn_norm", 0, HIDDEN), ("ffn_gate", FFN, HIDDEN), ("ffn_up", FFN, HIDDEN),
            ("ffn_down", HIDDEN, FFN))]
    shapes += [("output_norm", 0, HIDDEN), ("output", VOCAB, HIDDEN)]
    return [(name + ".weight", type_of(kind, name + ".weight"), rows, columns) for name, rows, columns in shapes]


def text(string):
    return struct.pack("<Q", len(string.encode())) + string.encode()


def metadata(kind):
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces += list("w0123456789")  # what the others are merged from
    pieces += [f"w{i}" for i in range(VOCAB - len(pieces))]
    numbers = {"block_count": LAYERS, "context_length": CONTEXT, "embedding_length": HIDDEN, "feed_forward_length": FFN,
               "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "vocab_size": VOCAB,
               "rope.dimension_count": HIDDEN // HEADS}
    out = [("general.architecture", STRING, text("llama")), ("tokenizer.ggml.model", STRING, text("llama")),
           ("general.file_type", U32, struct.pack("<I", KINDS[kind][1])),
           ("llama.attention.layer_norm_rms_epsilon", FLOAT, struct.pack("<f", EPSILON)),
           ("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 1)),
           ("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 2))]
    out += [("llama." + name, U32, struct.pack("<I", number)) for name, number in numbers.items()]
    types = [2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259)  # unknown, control, byte, normal
    arrays = {"tokens": (STRING, b"".join(map(text, pieces))),
              "scores": (FLOAT, struct.pack(f"<{VOCAB}f", *(-float(i) for i in range(VOCAB)))),
              "token_type": (I32, struct.pack(f"<{VOCAB}i", *types))}
    for name, (kind_of_item, items) in arrays.items():
        out.append(("tokenizer.ggml." + name, ARRAY, struct.pack("<IQ", kind_of_item, VOCAB) + items))
    return out


def pad(file):
    file.write(bytes(-file.tell() % ALIGNMENT))


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    kind, path = sys.argv[1], sys.argv[2]
    entries, fields, offset = tensors(kind), metadata(kind), 0
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(fields)))
        for key, kind_of_value, value in fields:
            file.write(text(key) + struct.pack("<I", kind_of_value) + value)
        for name, quantization, rows, columns in entries:
            dims = (columns, rows) if rows else (columns,)
            file.write(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, quantization, offset))
            size = size_of(quantization, max(rows, 1) * columns)
            offset += size + -size % ALIGNMENT
        for _, quantization, rows, columns in entries:
            pad(file)
            file.write(values(quantization, max(rows, 1) * columns))


if __name__ == "__main__":
    main()
