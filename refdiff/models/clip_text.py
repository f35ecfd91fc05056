"""The CLIP text transformer: token ids to one vector a token.

Source: Radford et al. 2021 (arXiv 2103.00020), section 2.4; transformers modeling_clip.py, CLIPTextTransformer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refdiff.core.architecture import Architecture, register
from refdiff.core.params import Declaration, Leaf, Params, numbered
from refdiff.core.tap import tap, unit
from refdiff.errors import BadRequest
from refdiff.models.config import read_config
from refdiff.models.layers import affine, linear_params, norm_params
from refdiff.ops import attention, embedding, gelu, layer_norm, quick_gelu
from refdiff.xp import Array, array_module

ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


@dataclass(frozen=True)
class CLIPTextConfig:
    """What config.json of a text encoder says."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str
    eos_token_id: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CLIPTextConfig:
        """Read config.json.  Raises: BadRequest for an option that is unknown, not supported or inconsistent."""
        fixed = {"attention_dropout": (0, 0.0), "dropout": (0, 0.0), "hidden_act": tuple(ACTIVATIONS)}
        config = read_config(cls, data, renamed={}, fixed=fixed, ignored=_IGNORED)
        width, heads = config.hidden_size, config.num_attention_heads
        if width % heads:
            raise BadRequest(f"CLIPTextConfig: hidden_size = {width} cannot be split into {heads} attention heads")
        return config

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json."""
        extra = {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "projection_dim": self.hidden_size,
        }
        return {
            **extra,
            "bos_token_id": self.vocab_size - 2,
            "pad_token_id": self.eos_token_id,
            **dataclasses.asdict(self),
        }


_IGNORED = frozenset(
    "architectures model_type projection_dim bos_token_id pad_token_id initializer_factor initializer_range torch_dtype dtype"
    " transformers_version is_decoder use_cache output_hidden_states output_attentions return_dict".split()
)


def clip_text(params: Params, config: CLIPTextConfig, ids: Array) -> tuple[Array, Array]:
    """Encode token ids: one vector a token, and the vector of the end token of each text.

    Shapes: [B,T] integers -> [B,T,D], [B,D]
    Traps: te-no-causal, te-gelu-for-quickgelu, te-quickgelu-for-gelu, te-pool-argmax, ln-eps
    """
    p = params.text_model
    xp = array_module(ids)
    positions = xp.arange(ids.shape[1])
    x = embedding(p.embeddings.token_embedding.weight, ids) + embedding(p.embeddings.position_embedding.weight, positions)
    x = tap(p.embeddings.path, x)
    for layer in p.encoder.layers:
        x = encoder_layer(layer, config, x)
    norm = p.final_layer_norm
    x = tap(norm.path, layer_norm(x, norm.weight, norm.bias, eps=config.layer_norm_eps))
    return x, _pooled(x, ids, config)


def declare(config: CLIPTextConfig) -> Declaration:
    """Every parameter of the text encoder."""
    width = config.hidden_size
    embeddings = {
        "token_embedding": {"weight": Leaf((config.vocab_size, width), "embedding")},
        "position_embedding": {"weight": Leaf((config.max_position_embeddings, width), "embedding")},
    }
    layers = numbered([encoder_layer_params(width, config.intermediate_size) for _ in range(config.num_hidden_layers)])
    return {"text_model": {"embeddings": embeddings, "encoder": {"layers": layers}, "final_layer_norm": norm_params(width)}}


def encoder_layer_params(width: int, hidden: int) -> Declaration:
    """The parameters of `encoder_layer`."""
    projections = {name: linear_params(width, width, bias=True) for name in ("k_proj", "v_proj", "q_proj", "out_proj")}
    return {
        "self_attn": projections,
        "layer_norm1": norm_params(width),
        "mlp": {"fc1": linear_params(width, hidden, bias=True), "fc2": linear_params(hidden, width, bias=True)},
        "layer_norm2": norm_params(width),
    }


@unit
def encoder_layer(p: Params, config: CLIPTextConfig, x: Array) -> Array:
    """Causal self-attention, then a perceptron, each on the normalised stream and added to it.

    Shapes: [B,T,D] -> [B,T,D]
    """
    heads, eps = config.num_attention_heads, config.layer_norm_eps
    scale = (config.hidden_size // heads) ** -0.5

    h = tap(p.layer_norm1.path, layer_norm(x, p.layer_norm1.weight, p.layer_norm1.bias, eps=eps))
    q, k, v = affine(p.self_attn.q_proj, h), affine(p.self_attn.k_proj, h), affine(p.self_attn.v_proj, h)
    h = attention(q, k, v, heads=heads, scale=scale, causal=True)
    x = x + tap(p.self_attn.path, affine(p.self_attn.out_proj, h))

    h = tap(p.layer_norm2.path, layer_norm(x, p.layer_norm2.weight, p.layer_norm2.bias, eps=eps))
    h = tap(f"{p.mlp.path}.activation_fn", ACTIVATIONS[config.hidden_act](affine(p.mlp.fc1, h)))  # [B,T,D] -> [B,T,4D]
    return x + tap(p.mlp.path, affine(p.mlp.fc2, h))  # [B,T,4D] -> [B,T,D]


def _pooled(x: Array, ids: Array, config: CLIPTextConfig) -> Array:
    """The row of the first end token, or the first row where there is none.

    The configurations of CLIP's first release say eos_token_id = 2, which is wrong: there the end token is the largest id.
    """
    batch, length, width = x.shape
    xp = array_module(ids)
    end = xp.argmax(ids if config.eos_token_id == 2 else ids == config.eos_token_id, axis=1)  # [B]
    return embedding(x.reshape(batch * length, width), xp.arange(batch) * length + end)  # [B,T,D] -> [B,D]


register(Architecture("CLIPTextModel", CLIPTextConfig.from_dict, CLIPTextConfig.to_dict, declare))
