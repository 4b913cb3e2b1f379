"""The network: a small Llama (RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings), named as Hugging Face names it."""

import torch
import torch.nn.functional as F
from torch import nn


class Shape:
    """Sizes of the network; `config()` is its config.json."""

    def __init__(self, vocab=4096, hidden=256, layers=8, heads=8, kv_heads=4, ffn=768, context=1024, theta=10000.0, eps=1e-5):
        self.vocab, self.hidden, self.layers, self.heads, self.kv_heads = vocab, hidden, layers, heads, kv_heads
        self.ffn, self.context, self.theta, self.eps, self.head_dim = ffn, context, theta, eps, hidden // heads

    def config(self, bos, eos):
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": self.vocab, "hidden_size": self.hidden,
            "intermediate_size": self.ffn, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim, "hidden_act": "silu",
            "max_position_embeddings": self.context, "rms_norm_eps": self.eps, "rope_theta": self.theta, "rope_scaling": None,
            "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": True,
            "initializer_range": 0.02, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "bfloat16", "use_cache": True,
        }


def rotate(x, cos, sin):
    """x [batch, heads, rows, head_dim]; pairs are (i, i + head_dim / 2)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, rows, _ = x.shape
        s = self.s
        q = rotate(self.q_proj(x).view(batch, rows, s.heads, s.head_dim).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(batch, rows, s.kv_heads, s.head_dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, rows, s.kv_heads, s.head_dim).transpose(1, 2)
        k = k.repeat_interleave(s.heads // s.kv_heads, 1)  # every SDPA kernel takes equal head counts
        v = v.repeat_interleave(s.heads // s.kv_heads, 1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, rows, -1))


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.ffn, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.ffn, bias=False)
        self.down_proj = nn.Linear(s.ffn, s.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(s.hidden, s.eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = nn.RMSNorm(s.hidden, s.eps)
        self.mlp = Mlp(s)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, shape.eps)
        inverse = shape.theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angle = torch.outer(torch.arange(shape.context).float(), inverse).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:  # the two matrices that write to the residual stream start smaller
                nn.init.normal_(p, std=0.02 / (2 * shape.layers) ** 0.5 if "o_proj" in name or "down_proj" in name else 0.02)

    def forward(self, tokens, targets=None):
        """tokens [batch, rows] -> logits [batch, rows, vocab], or the mean loss (nats per token) against targets."""
        rows = tokens.shape[1]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.cos[:rows], self.sin[:rows])
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.float().view(-1, self.shape.vocab), targets.reshape(-1))

    def hf_state(self):
        """Weights under Hugging Face names, rounded to bfloat16."""
        return {"model." + n: p.detach().to(torch.bfloat16).contiguous().cpu() for n, p in self.named_parameters()}
