"""Rounds float32 rows to the K-quants, which the gguf package can only read: plain rounding to nearest, good enough for tests."""

import gguf
import numpy
from gguf import GGMLQuantizationType as Type


def divide(a, b):
    return numpy.divide(a, b, out=numpy.zeros_like(a), where=b != 0)


def half(x):
    """(the bytes of x as binary16, what they say)"""
    rounded = x.astype(numpy.float16)
    return rounded[:, None].view(numpy.uint8), rounded.astype(numpy.float32)[:, None]


def with_minimum(x, bits):
    """Q4_K, Q5_K: blocks [n, 8, 32], element = d * scale * code - dmin * min."""
    most = 2**bits - 1
    low = numpy.minimum(x.min(-1), 0)
    scale = (x.max(-1) - low) / most
    d_bytes, d = half(scale.max(-1) / 63)
    dmin_bytes, dmin = half(-low.min(-1) / 63)
    s = divide(scale, d).round().clip(0, 63)
    m = divide(-low, dmin).round().clip(0, 63)
    q = divide(x + (dmin * m)[..., None], numpy.broadcast_to((d * s)[..., None], x.shape)).round().clip(0, most).astype(numpy.uint8)
    s, m = s.astype(numpy.uint8), m.astype(numpy.uint8)
    packed = [s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6, s[:, 4:] & 15 | m[:, 4:] << 4]
    high = [numpy.bitwise_or.reduce([q[:, g] >> 4 << g for g in range(8)])] if bits == 5 else []
    nibbles = (q[:, 0::2] & 15 | q[:, 1::2] << 4).reshape(len(x), 128)
    return numpy.concatenate([d_bytes, dmin_bytes, *packed, *high, nibbles], axis=1)


def q6_k(x):
    """Blocks [n, 16, 16], element = d * scale * code."""
    scale = numpy.abs(x).max(-1) / 31
    d_bytes, d = half(scale.max(-1) / 127)
    s = divide(scale, d).round().clip(0, 127)
    q = (divide(x, numpy.broadcast_to((d * s)[..., None], x.shape)).round().clip(-32, 31) + 32).astype(numpy.uint8)
    q = q.reshape(len(x), 2, 4, 32)
    low = numpy.concatenate([q[:, :, :2] & 15 | q[:, :, 2:] << 4], axis=-1).reshape(len(x), 128)
    high = numpy.bitwise_or.reduce([q[:, :, i] >> 4 << 2 * i for i in range(4)]).reshape(len(x), 64)
    return numpy.concatenate([low, high, s.astype(numpy.uint8), d_bytes], axis=1)


def quantize(w, kind):
    """float32 [rows, cols] -> bytes [rows, row bytes] of any type that GGUF files have for matrices."""
    if kind in (Type.Q4_K, Type.Q5_K):
        blocks = with_minimum(w.reshape(-1, 8, 32), 4 if kind == Type.Q4_K else 5)
    elif kind == Type.Q6_K:
        blocks = q6_k(w.reshape(-1, 16, 16))
    else:
        return gguf.quants.quantize(w, kind)
    return blocks.reshape(len(w), -1)
