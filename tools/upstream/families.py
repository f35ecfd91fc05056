"""Single formulas of SDXL, LoRA, ControlNet and tiles, by what diffusers and transformers have of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.embeddings import Timesteps
from diffusers.models.lora import LoRALinearLayer
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tools.upstream.samplers import scaled, scheduler_of

Torch = Mapping[str, torch.Tensor]
Constants = Mapping[str, Any]


def piece(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """The formula of that name."""
    return {"out": PIECES[c["piece"]](x, c)}


def projection(x: Torch, c: Constants) -> torch.Tensor:
    """The last layer of SDXL's second text encoder."""
    width = x["pooled"].shape[1]
    config = CLIPTextConfig(
        hidden_size=width, projection_dim=width, num_attention_heads=1, num_hidden_layers=1, intermediate_size=8, vocab_size=9,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    module = CLIPTextModelWithProjection(config).to(x["weight"].dtype)
    module.text_projection.load_state_dict({"weight": x["weight"]})
    return module.text_projection(x["pooled"])


class Tokenizer:
    """Any ids."""

    model_max_length = 5

    def __call__(self, prompt: Any, **options: Any) -> Any:
        """One row."""
        return SimpleNamespace(input_ids=torch.zeros(1, 5, dtype=torch.int64))


class Encoder(torch.nn.Module):
    """An encoder whose last layer but one, which SDXL takes, gives these features."""

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features, self.dtype, self.device = features, features.dtype, torch.device("cpu")

    def forward(self, ids: Any, output_hidden_states: bool) -> Any:
        """The pooled vector, which is not asked for here, and two layers."""
        return Output(torch.zeros(1, 8), [self.features, 0.0 * self.features])


class Output(NamedTuple):
    """As transformers' models give it."""

    pooled: torch.Tensor
    hidden_states: list[torch.Tensor]


def two_encoders(x: Torch, c: Constants) -> torch.Tensor:
    """The contexts of SDXL's pipeline between two encoders whose features are given, where no negative prompt is."""

    tokenizer = Tokenizer()
    first, second = Encoder(x["first"][1:]), Encoder(x["second"][1:])
    pipe = SimpleNamespace(
        tokenizer=tokenizer, tokenizer_2=tokenizer, text_encoder=first, text_encoder_2=second,
        config=SimpleNamespace(force_zeros_for_empty_prompt=True),
    )  # fmt: skip
    made = StableDiffusionXLPipeline.encode_prompt(
        pipe, "a fox", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    return torch.cat([made[1], made[0]])


def time_ids(x: Torch, c: Constants) -> torch.Tensor:
    """What SDXL's U-Net is told besides the time, before its perceptron; the sines are computed in float32 alone."""
    module = SimpleNamespace(
        config=SimpleNamespace(addition_embed_type="text_time"), add_embedding=lambda both: both,
        add_time_proj=Timesteps(c["width"], flip_sin_to_cos=True, downscale_freq_shift=0),
    )  # fmt: skip
    told = {"text_embeds": x["pooled"], "time_ids": x["sizes"]}
    return UNet2DConditionModel.get_aug_embed(module, emb=x["pooled"], encoder_hidden_states=None, added_cond_kwargs=told)


def merged(x: Torch, c: Constants) -> torch.Tensor:
    """The weight and what diffusers' layer adds to it: its answers to the unit vectors."""
    rank, inputs = x["down"].shape
    module = LoRALinearLayer(inputs, len(x["up"]), rank, network_alpha=c["alpha"]).to(x["down"].dtype)
    module.load_state_dict({"down.weight": x["down"], "up.weight": x["up"]})
    return x["weight"] + module(torch.eye(inputs, dtype=x["down"].dtype)).T


def hint(x: Torch, c: Constants) -> torch.Tensor:
    """The picture as StableDiffusionControlNetPipeline's processor makes it."""
    levels = x["levels"].numpy().astype(np.uint8)
    return VaeImageProcessor(do_convert_rgb=True, do_normalize=False).preprocess([Image.fromarray(one) for one in levels])


def network_input(x: Torch, c: Constants) -> torch.Tensor:
    """The latents as the ControlNet sees them at that step."""
    scheduler = scheduler_of(c["scheduler"], c["steps"])
    return scaled(scheduler, x["latents"], scheduler.timesteps[c["step"]])


def row(x: Torch, c: Constants) -> torch.Tensor:
    """Tiles of a row, each blended into the next, and of all but the last without what the next has."""
    tiles, blend = [tile[None] for tile in x["tiles"].clone()], c["overlap"]
    for k in range(1, len(tiles)):
        tiles[k] = AutoencoderKL.blend_h(SimpleNamespace(), tiles[k - 1], tiles[k], blend)
    return torch.cat([*[tile[..., :-blend] for tile in tiles[:-1]], tiles[-1]], dim=3)[0]


PIECES: Mapping[str, Callable[[Torch, Constants], torch.Tensor]] = {
    "sdxl/projection": projection, "sdxl/two-encoders": two_encoders, "sdxl/time-ids": time_ids, "lora/merged": merged,
    "controlnet/hint": hint, "controlnet/input": network_input, "tiles/row": row,
}  # fmt: skip
