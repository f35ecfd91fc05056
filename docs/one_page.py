"""Stable Diffusion 1.x, from a prompt to a picture, on one page of NumPy.

    python docs/one_page.py weights/embedded "a red circle on a white background" out.png

B batch, C channels, H W height and width, T tokens, D width, N heads. Weights are the dictionary of the checkpoint; a
prefix such as "down_blocks.0.resnets.1." names a part of it. Everything is float32. Only DDIM is here.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from scipy.special import erf

# ==== The story


def text_to_image(folder, prompt, negative="", *, steps, guidance, noise):
    """A prompt and noise [1,4,h,w] of unit variance -> the final latents [1,4,h,w] and the picture [H,W,3] uint8"""
    folder = Path(folder)
    tokenize = tokenizer(folder / "tokenizer")
    text, text_config = component(folder / "text_encoder")
    unet_weights, unet_config = component(folder / "unet")
    vae_weights, vae_config = component(folder / "vae")
    schedule = json.loads((folder / "scheduler/scheduler_config.json").read_text())

    ids = np.array([tokenize(negative), tokenize(prompt)])  # [2,T]: guidance away from the first, towards the second
    context = clip_text(text, text_config, ids)  # [2,T] -> [2,T,D]

    alphas = alphas_cumprod(schedule)
    x = noise.astype(np.float32)
    for t, target in zip(*times(schedule, steps), strict=True):
        both = unet(unet_weights, unet_config, np.concatenate([x, x]), t, context)
        prediction = both[:1] + np.float32(guidance) * (both[1:] - both[:1])
        x = ddim_step(x, prediction, alphas[t], alpha_after(schedule, alphas, target), schedule["prediction_type"])

    image = vae_decode(vae_weights, vae_config, x / np.float32(vae_config.get("scaling_factor", 0.18215)))
    levels = np.round(np.clip(image[0] / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    return x, levels.transpose(1, 2, 0)


# ==== The schedule and the sampler: x = sqrt(a) x0 + sqrt(1 - a) noise


def alphas_cumprod(schedule):
    start, end, count = schedule["beta_start"], schedule["beta_end"], schedule["num_train_timesteps"]
    if schedule["beta_schedule"] == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    else:
        betas = np.linspace(start, end, count)
    return np.cumprod(1 - betas)


def times(schedule, steps):
    """The time before each step, and after it."""
    count = schedule["num_train_timesteps"]
    if schedule.get("timestep_spacing", "leading") == "trailing":
        before = np.round(np.arange(count, 0, -count / steps)).astype(int) - 1
    else:
        before = np.arange(steps)[::-1] * (count // steps) + schedule.get("steps_offset", 0)
    return before, before - count // steps


def alpha_after(schedule, alphas, t):
    if t >= 0:
        return alphas[t]
    return 1.0 if schedule.get("set_alpha_to_one", True) else alphas[0]


def ddim_step(x, prediction, a, a_next, prediction_type):
    """Along the predicted noise from signal share a to a_next (Song et al. 2020, equation 12, without fresh noise)."""
    root, rest = np.float32(math.sqrt(a)), np.float32(math.sqrt(1 - a))
    if prediction_type == "v_prediction":
        x0, epsilon = root * x - rest * prediction, root * prediction + rest * x
    else:
        x0, epsilon = (x - rest * prediction) / root, prediction
    return np.float32(math.sqrt(a_next)) * x0 + np.float32(math.sqrt(1 - a_next)) * epsilon


def clip_text(p, config, ids):
    """[B,T] -> [B,T,D]"""
    p = {key.removeprefix("text_model."): value for key, value in p.items()}
    x = p["embeddings.token_embedding.weight"][ids] + p["embeddings.position_embedding.weight"][: ids.shape[1]]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}."
        h = layer_norm(p, layer + "layer_norm1.", x)
        q, k, v = (linear(p, layer + f"self_attn.{name}_proj.", h) for name in "qkv")
        x = x + linear(p, layer + "self_attn.out_proj.", attention(q, k, v, config["num_attention_heads"], causal=True))
        h = linear(p, layer + "mlp.fc1.", layer_norm(p, layer + "layer_norm2.", x))
        h = h * sigmoid(np.float32(1.702) * h) if config["hidden_act"] == "quick_gelu" else gelu(h)
        x = x + linear(p, layer + "mlp.fc2.", h)
    return layer_norm(p, "final_layer_norm.", x)


# ==== The U-Net


def unet(p, config, x, t, context):
    """[B,C,H,W], time, [B,T,D] -> [B,C,H,W]"""
    widths, groups = config["block_out_channels"], config.get("norm_num_groups", 32)
    heads = config["attention_head_dim"]  # the number of heads, in spite of its name
    heads = [heads] * len(widths) if isinstance(heads, int) else list(heads)
    temb = linear(p, "time_embedding.linear_1.", sinusoids(t, widths[0]))
    temb = silu(linear(p, "time_embedding.linear_2.", silu(temb)))  # every resnet takes it through silu

    def layer(block, i, x, n):
        x = resnet(p, f"{block}resnets.{i}.", x, groups, 1e-5, temb)
        if f"{block}attentions.{i}.norm.weight" in p:
            x = spatial_transformer(p, f"{block}attentions.{i}.", x, context, n, groups)
        return x

    x = conv(p, "conv_in.", x)
    skips = [x]
    for level in range(len(widths)):
        block = f"down_blocks.{level}."
        for i in range(config.get("layers_per_block", 2)):
            x = layer(block, i, x, heads[level])
            skips.append(x)
        if block + "downsamplers.0.conv.weight" in p:
            x = conv(p, block + "downsamplers.0.conv.", x, stride=2)  # [B,C,H,W] -> [B,C,H/2,W/2]
            skips.append(x)

    x = layer("mid_block.", 0, x, heads[-1])
    x = resnet(p, "mid_block.resnets.1.", x, groups, 1e-5, temb)

    for level in range(len(widths)):
        block = f"up_blocks.{level}."
        for i in range(config.get("layers_per_block", 2) + 1):
            x = np.concatenate([x, skips.pop()], axis=1)
            x = layer(block, i, x, heads[::-1][level])
        if block + "upsamplers.0.conv.weight" in p:
            height, width = skips[-1].shape[2:]
            x = x.repeat(2, axis=2).repeat(2, axis=3)[:, :, :height, :width]
            x = conv(p, block + "upsamplers.0.conv.", x)
    return conv(p, "conv_out.", silu(group_norm(p, "conv_norm_out.", x, groups, 1e-5)))


def sinusoids(t, width):
    """The time as [cos, sin] at geometrically falling frequencies: -> [1,width]"""
    exponents = np.float32(-math.log(10000)) * np.arange(width // 2, dtype=np.float32) / np.float32(width // 2)
    phase = np.float32(t) * np.exp(exponents.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.cos(phase), np.sin(phase)])[None]


def spatial_transformer(p, at, x, context, heads, groups):
    """[B,C,H,W] -> [B,C,H,W]: pixels attend to each other, then to the text, then a gated perceptron"""
    batch, channels, height, width = x.shape
    h = conv(p, at + "proj_in.", group_norm(p, at + "norm.", x, groups, 1e-6))
    h = h.transpose(0, 2, 3, 1).reshape(batch, height * width, channels)  # [B,C,H,W] -> [B,HW,C]
    block = at + "transformer_blocks.0."
    for name, norm, seen in (("attn1.", "norm1.", None), ("attn2.", "norm2.", context)):
        n = layer_norm(p, block + norm, h)
        s = n if seen is None else seen
        q, k, v = linear(p, block + name + "to_q.", n), linear(p, block + name + "to_k.", s), linear(p, block + name + "to_v.", s)
        h = h + linear(p, block + name + "to_out.0.", attention(q, k, v, heads))
    value, gate = np.split(linear(p, block + "ff.net.0.proj.", layer_norm(p, block + "norm3.", h)), 2, axis=-1)
    h = h + linear(p, block + "ff.net.2.", value * gelu(gate))
    h = h.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)  # [B,HW,C] -> [B,C,H,W]
    return x + conv(p, at + "proj_out.", h)


def vae_decode(p, config, z):
    """[B,4,h,w] -> [B,3,H,W], about -1..1"""
    groups = config.get("norm_num_groups", 32)
    x = conv(p, "decoder.conv_in.", conv(p, "post_quant_conv.", z))
    x = resnet(p, "decoder.mid_block.resnets.0.", x, groups, 1e-6)
    x = pixel_attention(p, "decoder.mid_block.attentions.0.", x, groups)
    x = resnet(p, "decoder.mid_block.resnets.1.", x, groups, 1e-6)
    for level in range(len(config["block_out_channels"])):
        block = f"decoder.up_blocks.{level}."
        for i in range(config["layers_per_block"] + 1):
            x = resnet(p, f"{block}resnets.{i}.", x, groups, 1e-6)
        if block + "upsamplers.0.conv.weight" in p:
            x = conv(p, block + "upsamplers.0.conv.", x.repeat(2, axis=2).repeat(2, axis=3))
    return conv(p, "decoder.conv_out.", silu(group_norm(p, "decoder.conv_norm_out.", x, groups, 1e-6)))


def pixel_attention(p, at, x, groups):
    batch, channels, height, width = x.shape
    h = group_norm(p, at + "group_norm.", x, groups, 1e-6).transpose(0, 2, 3, 1).reshape(batch, -1, channels)
    h = attention(*(linear(p, at + f"to_{name}.", h) for name in "qkv"), heads=1)
    return x + linear(p, at + "to_out.0.", h).reshape(batch, height, width, channels).transpose(0, 3, 1, 2)


# ==== Layers


def resnet(p, at, x, groups, eps, temb=None):
    """[B,C,H,W] -> [B,C',H,W]"""
    h = conv(p, at + "conv1.", silu(group_norm(p, at + "norm1.", x, groups, eps)))
    if temb is not None:
        h = h + linear(p, at + "time_emb_proj.", temb)[:, :, None, None]
    h = conv(p, at + "conv2.", silu(group_norm(p, at + "norm2.", h, groups, eps)))
    return h + (conv(p, at + "conv_shortcut.", x) if at + "conv_shortcut.weight" in p else x)


def attention(q, k, v, heads, causal=False):
    """[B,T,D], [B,S,D], [B,S,D] -> [B,T,D]"""
    q, k, v = (a.reshape(*a.shape[:2], heads, -1).transpose(0, 2, 1, 3) for a in (q, k, v))  # [B,T,D] -> [B,N,T,D/N]
    scores = q @ k.swapaxes(-1, -2) * np.float32(q.shape[-1] ** -0.5)
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    out = e / e.sum(axis=-1, keepdims=True) @ v
    return out.transpose(0, 2, 1, 3).reshape(out.shape[0], out.shape[2], -1)  # [B,N,T,D/N] -> [B,T,D]


def conv(p, at, x, stride=1):
    """Every convolution here is 1x1, or 3x3 with one zero around: [B,C,H,W] -> [B,O,H',W']"""
    weight, bias = p[at + "weight"], p[at + "bias"]
    kernel = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2) + bias[:, None, None]


def linear(p, at, x):
    y = x @ p[at + "weight"].T
    return y + p[at + "bias"] if at + "bias" in p else y


def group_norm(p, at, x, groups, eps):
    g = x.reshape(x.shape[0], groups, -1)
    g = (g - g.mean(axis=-1, keepdims=True)) / np.sqrt(g.var(axis=-1, keepdims=True) + np.float32(eps))
    return g.reshape(x.shape) * p[at + "weight"][:, None, None] + p[at + "bias"][:, None, None]


def layer_norm(p, at, x):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(1e-5))
    return x * p[at + "weight"] + p[at + "bias"]


def sigmoid(x):
    return 0.5 * (np.tanh(0.5 * x) + 1)


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    return x * (0.5 * (1 + erf(x * np.float32(math.sqrt(0.5)))))


def component(folder):
    """The weights {key: float32 array} and the config.json of a folder with one file of weights."""
    (path,) = folder.glob("*.safetensors")
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, weights = json.loads(raw[8 : 8 + length]), {}
    header.pop("__metadata__", None)
    for key, entry in header.items():
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        dtype = {"F16": np.float16, "F32": np.float32}[entry["dtype"]]
        weights[key] = np.frombuffer(raw[start:stop], dtype).reshape(entry["shape"]).astype(np.float32)
    return weights, json.loads((folder / "config.json").read_text())


def tokenizer(folder):
    """A function from plain English text to CLIP's ids, padded with the end of the text."""
    import re

    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    ranks = {tuple(line.split()): n for n, line in enumerate(lines[1:]) if line}
    length = json.loads((folder / "tokenizer_config.json").read_text()).get("model_max_length", 77)
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]

    def merge(word):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = min(zip(pieces, pieces[1:], strict=False), key=lambda pair: ranks.get(pair, math.inf))
            if pair not in ranks:
                break
            i = next(i for i in range(len(pieces)) if tuple(pieces[i : i + 2]) == pair)
            pieces[i : i + 2] = ["".join(pair)]
        return pieces

    def ids(text):
        words = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower())
        tokens = [vocabulary[piece] for word in words for piece in merge(word)][: length - 2]
        return [start, *tokens, end] + [end] * (length - 2 - len(tokens))

    return ids


if __name__ == "__main__":
    from PIL import Image

    model, words, file = sys.argv[1:]
    side = json.loads((Path(model) / "unet/config.json").read_text())["sample_size"]
    unit = np.random.default_rng(0).standard_normal((1, 4, side, side))
    Image.fromarray(text_to_image(model, words, steps=20, guidance=3.0, noise=unit)[1]).save(file)
