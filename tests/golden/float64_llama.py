"""A Llama forward pass in float64, written from the architecture's definition: what every float32 result is measured against."""

import math

import numpy


def frequencies(config):
    """Radians per position, [head_dim / 2], with the config's scaling."""
    dim = config["head_dim"]
    f = config["rope_theta"] ** (-numpy.arange(0, dim, 2) / dim)
    scaling = config["rope_scaling"]
    if scaling is None:
        return f
    if scaling["rope_type"] == "linear":
        return f / scaling["factor"]
    assert scaling["rope_type"] == "llama3"
    low, high, original = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / f
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * f / scaling["factor"] + smooth * f
    return numpy.where(wavelength < original / high, f, numpy.where(wavelength > original / low, f / scaling["factor"], between))


def rotate(x, angles):
    """x [n, heads, dim], angles [n, dim / 2]: dimension i turns with dimension i + dim / 2."""
    cos, sin = numpy.cos(angles)[:, None, :], numpy.sin(angles)[:, None, :]
    a, b = numpy.split(x, 2, axis=-1)
    return numpy.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def last_logits(config, weights, tokens, kv_f16=False):
    """Logits [vocab] of the last token. `weights` by Hugging Face name in float64; kv_f16 rounds keys and values to f16 first."""
    heads, kv_heads, dim, n = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"], len(tokens)
    angles = numpy.arange(n)[:, None] * frequencies(config)
    future = numpy.triu(numpy.full((n, n), -numpy.inf), 1)

    def norm(x, name):
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name + ".weight"]

    def linear(x, name):
        return x @ weights[name + ".weight"].T + weights.get(name + ".bias", 0.0)

    x = weights["model.embed_tokens.weight"][tokens]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        y = norm(x, layer + "input_layernorm")
        q = rotate(linear(y, layer + "self_attn.q_proj").reshape(n, heads, dim), angles)
        k = rotate(linear(y, layer + "self_attn.k_proj").reshape(n, kv_heads, dim), angles)
        v = linear(y, layer + "self_attn.v_proj").reshape(n, kv_heads, dim)
        if kv_f16:
            k, v = k.astype(numpy.float16).astype(numpy.float64), v.astype(numpy.float16).astype(numpy.float64)
        k, v = (t.repeat(heads // kv_heads, axis=1) for t in (k, v))
        s = numpy.einsum("qhd,khd->hqk", q, k) / math.sqrt(dim) + future
        p = numpy.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + linear(numpy.einsum("hqk,khd->qhd", p, v).reshape(n, heads * dim), layer + "self_attn.o_proj")
        y = norm(x, layer + "post_attention_layernorm")
        gate = linear(y, layer + "mlp.gate_proj")
        x = x + linear(gate / (1 + numpy.exp(-gate)) * linear(y, layer + "mlp.up_proj"), layer + "mlp.down_proj")
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return norm(x[-1:], "model.norm")[0] @ weights[head + ".weight"].T
