#!/usr/bin/env python3
"""Writes a GGUF of TinyLlama-1.1B's shape with random weights, for measuring other programs beside `llorch bench`.

Usage: make-random-gguf.py f16|q8_0|q4_0|q4_k|q6_k|q4_k_m FILE        (needs PyPI's gguf and numpy; docs/performance.md says how it is used)

The values are those of a plausible network (normal, small scales), so that no program meets NaN or subnormals. The
vocabulary is 32000 invented pieces: token ids go in, logits come out.
"""
import sys

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 2048, 22, 32, 4, 5632, 32000, 2048
Type = gguf.GGMLQuantizationType
KINDS = {
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_k": (Type.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_S),
    "q6_k": (Type.Q6_K, gguf.LlamaFileType.MOSTLY_Q6_K),
    "q4_k_m": (Type.Q4_K, gguf.LlamaFileType.MOSTLY_Q4_K_M),
}
# Elements of a block, and its bytes in file order: a float is a binary16, a number as many random bytes.
BLOCKS = {
    Type.Q8_0: (32, (0.02 / 64, 32)),
    Type.Q4_0: (32, (0.02 / 4, 16)),
    Type.Q4_K: (256, (0.02 / 4 / 32, 0.02 * 2 / 32, 12, 128)),
    Type.Q6_K: (256, (128, 64, 16, 0.02 / 16 / 64)),
}
random = np.random.default_rng(1)


def type_of(kind, name):
    """As llorch bench: of q4_k_m, llama.cpp's recipe has Q6_K for the head, and for attn_v and ffn_down in half of the layers."""
    if kind == "q4_k_m" and name == "output.weight":
        return Type.Q6_K
    if kind == "q4_k_m" and ("attn_v" in name or "ffn_down" in name):
        layer, eighth = int(name.split(".")[1]), LAYERS // 8
        if layer < eighth or layer >= 7 * LAYERS // 8 or (layer - eighth) % 3 == 2:
            return Type.Q6_K
    return KINDS[kind][0]


def matrix(quantization, rows, cols):
    if quantization == Type.F16:
        return (random.standard_normal((rows, cols), dtype=np.float32) * 0.02).astype(np.float16)
    elements, parts = BLOCKS[quantization]
    shape = (rows, cols // elements)
    columns = []
    for part in parts:
        if isinstance(part, float):
            half = np.frombuffer(np.float16(part).tobytes(), dtype=np.uint8)
            columns.append(np.broadcast_to(half, (*shape, 2)))
        else:
            columns.append(random.integers(0, 256, (*shape, part), dtype=np.uint8))
    return np.concatenate(columns, axis=-1).reshape(rows, -1)


def main():
    kind, path = sys.argv[1], sys.argv[2]
    file_type = KINDS[kind][1]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCAB)
    writer.add_file_type(file_type)
    special = ["<unk>", "<s>", "</s>"]
    pieces = special + [f"<0x{b:02X}>" for b in range(256)]
    pieces += [f"w{i}" for i in range(VOCAB - len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def add(name, rows, cols):
        quantization = type_of(kind, name)
        writer.add_tensor(name, matrix(quantization, rows, cols), raw_dtype=quantization)

    def add_norm(name):
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))

    kv = KV_HEADS * (HIDDEN // HEADS)
    add("token_embd.weight", VOCAB, HIDDEN)
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        add_norm(name + "attn_norm.weight")
        add(name + "attn_q.weight", HIDDEN, HIDDEN)
        add(name + "attn_k.weight", kv, HIDDEN)
        add(name + "attn_v.weight", kv, HIDDEN)
        add(name + "attn_output.weight", HIDDEN, HIDDEN)
        add_norm(name + "ffn_norm.weight")
        add(name + "ffn_gate.weight", FFN, HIDDEN)
        add(name + "ffn_up.weight", FFN, HIDDEN)
        add(name + "ffn_down.weight", HIDDEN, FFN)
    add_norm("output_norm.weight")
    add("output.weight", VOCAB, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
