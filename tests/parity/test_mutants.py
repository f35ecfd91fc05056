"""The parity tests can fail: each known porting bug, put into our models, raises the error above the bound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from refdiff import ops
from refdiff.models import clip_text, layers, transformer, unet, vae
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params, token_ids
from tests.parity import upstream
from tests.parity.upstream import MODEL_BOUND, relative_error, sinusoids_for, tensor


def run_unet(dtype, change=lambda config: config) -> float:
    """The error of the U-Net, ours with a changed configuration."""
    config = unet.UNetConfig.from_dict(UNETS["two levels"])
    params = random_params(unet.declare(config), dtype)
    x, t, context = normal(2, 4, 9, 6, dtype=dtype), np.array([17, 903]), normal(2, 7, 12, dtype=dtype, seed=2)
    with sinusoids_for(dtype):
        want = upstream.unet(UNETS["two levels"], params)(tensor(x), tensor(t), tensor(context)).sample
    return relative_error(unet.unet(params, change(config), x, t, context), want)


def run_transformer(dtype) -> float:
    """The error of one transformer on values so small that eps counts; in a whole U-Net float32 cannot see it."""
    config = unet.UNetConfig.from_dict(UNETS["two levels"])
    params = random_params(unet.declare(config), dtype)
    x, context = normal(2, 8, 9, 6, dtype=dtype) * dtype(0.05), normal(2, 7, 12, dtype=dtype, seed=2)
    block = upstream.unet(UNETS["two levels"], params).down_blocks[0].attentions[0]
    want = block(tensor(x), encoder_hidden_states=tensor(context)).sample
    part = params.down_blocks[0].attentions[0]
    return relative_error(transformer.spatial_transformer(part, x, context, heads=2, groups=4), want)


def run_encoder(dtype) -> float:
    """The error of the autoencoder's mean."""
    config = vae.VAEConfig.from_dict(VAES["two levels"])
    params = random_params(vae.declare(config), dtype)
    x = normal(2, 3, 20, 28, dtype=dtype)
    want = upstream.vae(VAES["two levels"], params).encode(tensor(x)).latent_dist.mean
    return relative_error(vae.encode(params, config, x)[0], want)


def run_decoder(dtype) -> float:
    """The error of the autoencoder's image."""
    config = vae.VAEConfig.from_dict(VAES["two levels"])
    params = random_params(vae.declare(config), dtype)
    z = normal(2, 4, 5, 7, dtype=dtype)
    return relative_error(vae.decode(params, config, z), upstream.vae(VAES["two levels"], params).decode(tensor(z)).sample)


def run_text(dtype, name: str = "quick gelu") -> float:
    """The error of the tokens of the text encoder."""
    config = clip_text.CLIPTextConfig.from_dict(CLIPS[name])
    params = random_params(clip_text.declare(config), dtype)
    want = upstream.clip_text(CLIPS[name], params)(tensor(token_ids(11))).last_hidden_state
    return relative_error(clip_text.clip_text(params, config, token_ids(11))[0], want)


def with_constants(op, **changed):
    """The op with other constants than the model gives."""
    return lambda *args, **constants: op(*args, **{**constants, **changed})


def swapped_geglu(x):
    """The gate and the value the wrong way round."""
    value, gate = ops.split(x, 2, axis=-1)
    return ops.gelu(value) * gate


def tanh_geglu(x):
    """The approximate GELU."""
    value, gate = ops.split(x, 2, axis=-1)
    return value * ops.gelu_tanh(gate)


def symmetric_padding(x, weight, bias, *, stride, padding):
    """A step down that pads every side."""
    return ops.conv2d(x, weight, bias, stride=stride, padding=(1, 1, 1, 1) if stride == 2 else padding)


def one_sided_padding(x, weight, bias, *, stride, padding):
    """A step down that pads the last row and column twice."""
    return ops.conv2d(x, weight, bias, stride=stride, padding=(0, 2, 0, 2) if stride == 2 else padding)


def unbiased_norm(x, weight, bias, *, groups, eps):
    """The variance over n - 1."""
    flat = x.reshape(x.shape[0], groups, -1)
    centred = flat - flat.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(flat.var(axis=-1, keepdims=True, ddof=1) + eps)
    return ops.silu(normal.reshape(x.shape) * weight[:, None, None] + bias[:, None, None])


def interleaved_groups(x, weight, bias, *, groups, eps):
    """Groups of every n-th channel."""
    order = np.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
    back = np.argsort(order)
    y = ops.group_norm(x[:, order], weight[order], bias[order], groups=groups, eps=eps)
    return ops.silu(y[:, back])


def transposed_kernel(p, x):
    """The taps of a 3x3 kernel with rows and columns swapped."""
    weight = p.weight.swapaxes(-1, -2)
    return ops.conv2d(x, weight, p.bias, stride=1, padding=(1, 1, 1, 1))


def interleaved_sinusoids(t, **constants):
    """sin, cos, sin, cos."""
    both = ops.timestep_embedding(t, **constants)
    return both.reshape(len(both), 2, -1).swapaxes(1, 2).reshape(both.shape)


# name of the bug: (what is replaced, the wrong part, what is run)
MUTANTS = {
    "gn-eps": (transformer, "group_norm", with_constants(ops.group_norm, eps=1e-5), run_transformer),
    "gn-eps in the autoencoder": (vae, "NORM_EPS", 1e-5, run_encoder),
    "gn-unbiased": (unet, "group_norm_silu", unbiased_norm, run_unet),
    "gn-layout": (unet, "group_norm_silu", interleaved_groups, run_unet),
    "gn-groups": (vae, "group_norm_silu", with_constants(ops.group_norm_silu, groups=2), run_decoder),
    "ln-eps": (clip_text, "layer_norm", with_constants(ops.layer_norm, eps=1e-3), run_text),
    "temb-interleave": (unet, "timestep_embedding", interleaved_sinusoids, run_unet),
    "t-int-trunc": (unet, "timestep_embedding", lambda t, **c: ops.timestep_embedding(t // 2 * 2, **c), run_unet),
    "temb-silu": (unet, "silu", lambda x: x, run_unet),
    "attn-no-scale": (transformer, "attention", with_constants(ops.attention, scale=1.0), run_unet),
    "geglu-swap": (transformer, "geglu", swapped_geglu, run_unet),
    "gelu-tanh": (transformer, "geglu", tanh_geglu, run_unet),
    "skip-add": (unet, "concatenate", lambda parts, *, axis: ops.concatenate(parts[::-1], axis=axis), run_unet),
    "unet-down-pad": (unet, "conv2d", one_sided_padding, run_unet),
    "up-size": (unet, "crop", lambda x, *, height, width: x[:, :, -height:, -width:], run_unet),
    "w-conv-flip": (unet, "conv3x3", transposed_kernel, run_unet),
    "vae-pad": (vae, "conv2d", symmetric_padding, run_encoder),
    "vae-quant-conv": (vae, "conv1x1", lambda p, x: layers.conv1x1(p, x) if "quant" not in p.path else x, run_decoder),
    "vae-attn-keys": (
        vae,
        "affine",
        lambda p, x: layers.affine(p, x) if not p.path.endswith("to_k") else x,
        run_decoder,
    ),
    "te-no-causal": (clip_text, "attention", with_constants(ops.attention, causal=False), run_text),
    "te-gelu-for-quickgelu": (clip_text, "ACTIVATIONS", {"quick_gelu": ops.gelu}, run_text),
    "te-quickgelu-for-gelu": (
        *(clip_text, "ACTIVATIONS", {"gelu": ops.quick_gelu}),
        lambda dtype: run_text(dtype, "gelu"),
    ),
}
WRONG_CONFIGS = {
    "temb-flip": {"flip_sin_to_cos": False},
    "temb-shift": {"freq_shift": 1.0},
    "heads-vs-dim": {"attention_head_dim": (4, 8)},  # widths 8 and 16, cut into heads of 2 features
    "gn-eps in the resnets": {"norm_eps": 1e-6},
}


@pytest.mark.parametrize("dtype", MODEL_BOUND)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_part_is_seen(name, dtype, monkeypatch, record_property):
    module, attribute, wrong, run = MUTANTS[name]
    assert run(dtype) <= MODEL_BOUND[dtype]
    monkeypatch.setattr(module, attribute, wrong)
    error = run(dtype)
    record_property("mutant", (name, np.dtype(dtype).name, error))
    print(f"{name}, {np.dtype(dtype).name}: {error:.1e}")
    assert error > MODEL_BOUND[dtype]


@pytest.mark.parametrize("dtype", MODEL_BOUND)
@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_a_wrong_option_is_seen(name, dtype, record_property):
    error = run_unet(dtype, lambda config: dataclasses.replace(config, **WRONG_CONFIGS[name]))
    record_property("mutant", (name, np.dtype(dtype).name, error))
    print(f"{name}, {np.dtype(dtype).name}: {error:.1e}")
    assert error > MODEL_BOUND[dtype]
