#!/usr/bin/env python3
"""Writes a GGUF of TinyLlama-1.1B's shape with random weights, for measuring other programs beside `llorch bench`.

Usage: make-random-gguf.py f16|q8_0|q4_0 FILE        (needs PyPI's gguf and numpy; docs/performance.md says how it is used)

The values are those of a plausible network (normal, small scales), so that no program meets NaN or subnormals. The
vocabulary is 32000 invented pieces: token ids go in, logits come out.
"""
import sys

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 2048, 22, 32, 4, 5632, 32000, 2048
KINDS = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
random = np.random.default_rng(1)


def matrix(kind, rows, cols):
    if kind == "f16":
        return (random.standard_normal((rows, cols), dtype=np.float32) * 0.02).astype(np.float16)
    code_bytes = 32 if kind == "q8_0" else 16  # a block of 32: one f16 scale, then its codes
    blocks = np.empty((rows, cols // 32, 2 + code_bytes), dtype=np.uint8)
    scale = np.float16(0.02 / 64 if kind == "q8_0" else 0.02 / 4)
    blocks[:, :, :2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
    blocks[:, :, 2:] = random.integers(0, 256, (rows, cols // 32, code_bytes), dtype=np.uint8)
    return blocks.reshape(rows, -1)


def main():
    kind, path = sys.argv[1], sys.argv[2]
    quantization, file_type = KINDS[kind]
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
        data = matrix(kind, rows, cols)
        writer.add_tensor(name, data, raw_dtype=quantization)

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
