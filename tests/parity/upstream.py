"""The same networks in diffusers and transformers, with our weights; and the measure of agreement."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models import embeddings
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel

from refdiff.core.params import Params, flatten

torch.set_num_threads(1)
diffusers_logging.set_verbosity_error()  # it warns at every change of precision

BLOCK_BOUND = {np.float32: 2e-6, np.float64: 1e-12}
MODEL_BOUND = {np.float32: 1e-5, np.float64: 1e-12}


def tensor(x: np.ndarray) -> torch.Tensor:
    """A copy in torch."""
    return torch.from_numpy(np.array(x))


def unet(config: dict[str, Any], params: Params) -> torch.nn.Module:
    """diffusers' U-Net."""
    return _with_weights(UNet2DConditionModel(**config), flatten(params))


def vae(config: dict[str, Any], params: Params) -> torch.nn.Module:
    """diffusers' autoencoder."""
    return _with_weights(AutoencoderKL(**config), flatten(params))


def clip_text(config: dict[str, Any], params: Params) -> torch.nn.Module:
    """transformers' text encoder, whose keys have no prefix."""
    prefix = "text_model."
    model = CLIPTextModel(CLIPTextConfig(**config, bos_token_id=48, pad_token_id=49))
    return _with_weights(model, {key.removeprefix(prefix): value for key, value in flatten(params).items()})


def _with_weights(model: torch.nn.Module, flat: dict[str, np.ndarray]) -> torch.nn.Module:
    """Every weight of the model from ours: none missing, none left over."""
    dtype = tensor(next(iter(flat.values()))).dtype
    model = model.to(dtype).eval().requires_grad_(False)
    model.load_state_dict({key: tensor(value) for key, value in flat.items()}, strict=True)
    return model


def relative_error(got: Any, want: Any) -> float:
    """|got - want| / |want| (L2), the shapes being equal."""
    got, want = (x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in (got, want))
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    return float(np.linalg.norm(np.ravel(got - want)) / np.linalg.norm(np.ravel(want)))


class Measure:
    """Holds an error against its bound, and notes both for the table of measurements."""

    def __init__(self, record: Callable[[str, object], None]):
        self._record = record

    def __call__(self, what: str, got: Any, want: Any, bound: float) -> None:
        """Fail where the relative error is over the bound."""
        error = relative_error(got, want)
        self._record("measured", (what, error, bound))
        print(f"{what}: {error:.1e} (bound {bound:.0e})")
        assert error <= bound, f"{what}: {error:.2e} > {bound:.0e}"


@contextlib.contextmanager
def exact_sinusoids() -> Iterator[None]:
    """Let diffusers compute its sinusoids in float64.

    It always takes float32 for them, so that no float64 run of it is exact: the formula is put in its place in float64.
    The float32 comparisons leave diffusers as it is.
    """

    def in_float64(
        timesteps: torch.Tensor,
        embedding_dim: int,
        flip_sin_to_cos: bool = False,
        downscale_freq_shift: float = 1,
        scale: float = 1,
        max_period: int = 10000,
    ) -> torch.Tensor:
        half = embedding_dim // 2
        step = math.log(max_period) / (half - downscale_freq_shift)
        phase = scale * timesteps.double()[:, None] * torch.exp(-step * torch.arange(half, dtype=torch.float64))
        halves = [torch.cos(phase), torch.sin(phase)] if flip_sin_to_cos else [torch.sin(phase), torch.cos(phase)]
        return torch.cat(halves, dim=-1)

    with mock.patch.object(embeddings, "get_timestep_embedding", in_float64):
        yield


def sinusoids_for(dtype: type) -> contextlib.AbstractContextManager:
    """diffusers as it is for float32, with exact sinusoids for float64."""
    return exact_sinusoids() if dtype is np.float64 else contextlib.nullcontext()
