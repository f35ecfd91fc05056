"""Ten steps of training agree with torch: its autograd, clipping, AdamW, on the same data from the same weights.

Ours go through the whole loop (losses, tape, gradient rules, clipping, optimiser, moving average); torch's are the
networks of diffusers and transformers, the losses written once more in torch, and torch.optim.AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from refdiff.core.params import flatten
from refdiff.core.primitive import MODES, PRIMITIVES, Primitive, mode
from refdiff.models import clip_text, unet, vae
from refdiff.training import loop, losses
from refdiff.training.optimizer import OptimizerSettings, flatten_vector, learning_rate, unflatten_vector
from tests.models.examples import CLIPS, UNETS, VAES, random_params
from tests.parity import upstream
from tests.parity.upstream import sinusoids_for, tensor

STEPS = 10
LOSS_BOUND = {np.float32: 1e-5, np.float64: 1e-12}
# After ten steps of AdamW, which divides by the root of tiny second moments, the weights themselves are that close.
WEIGHT_BOUND = {np.float32: 2e-4, np.float64: 1e-10}
SETTINGS = OptimizerSettings(
    learning_rate=3e-3, warmup_steps=3, decay_from=0.6, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.05,
    clip_norm=0.5, ema_decay=0.9,
)  # fmt: skip
ALPHAS = np.cumprod(1.0 - np.linspace(1e-4, 2e-2, 1000))
CLIP_CONFIG = {**CLIPS["quick gelu"], "hidden_size": 12, "num_attention_heads": 2}


@dataclass(frozen=True)
class FixedTask:
    """A task with the weights, batches and loss that it is given."""

    values: Mapping[str, np.ndarray]
    make_batch: Callable[[int], dict[str, np.ndarray]]
    make_loss: Callable[[Any, Mapping[str, Any]], Any]

    def initial(self) -> dict[str, np.ndarray]:
        """The first weights."""
        return dict(self.values)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step."""
        return self.make_batch(step)

    def loss(self, params: Any, batch: Mapping[str, Any]) -> Any:
        """The loss of a batch."""
        return self.make_loss(params, batch)


def ours(task: FixedTask) -> loop.State:
    """Ten steps of the loop."""
    first = task.initial()
    shapes = {key: value.shape for key, value in first.items()}
    vector = flatten_vector(first, list(first))
    state = loop.State(0, vector, vector * 0, vector * 0, vector, [])
    for _ in range(STEPS):
        state = loop.update(task, SETTINGS, state, shapes, steps=STEPS, device="cpu")
    return state


def theirs(parameters: dict[str, torch.nn.Parameter], loss_of_step: Callable[[int], torch.Tensor]) -> dict:
    """Ten steps in torch: the losses, the weights and their moving average."""
    weights = list(parameters.values())
    optimizer = torch.optim.AdamW(
        weights, lr=1.0, betas=(SETTINGS.beta1, SETTINGS.beta2), eps=SETTINGS.eps, weight_decay=SETTINGS.weight_decay
    )
    average = {key: p.detach().clone() for key, p in parameters.items()}
    values = []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, SETTINGS)
        optimizer.zero_grad()
        loss = loss_of_step(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, SETTINGS.clip_norm)
        optimizer.step()
        decay = min(SETTINGS.ema_decay, step / (step + 10.0))
        for key, p in parameters.items():
            average[key].lerp_(p.detach(), 1.0 - decay)
        values.append(loss.item())
    return {"losses": values, "weights": parameters, "average": average}


def compare(measure, label: str, state: loop.State, want: dict, task: FixedTask, dtype: type) -> None:
    """Losses within the bound, and the weights and their average as near as AdamW leaves them."""
    errors = [abs(a - b) / abs(b) for a, b in zip(state.losses, want["losses"], strict=True)]
    assert len(set(want["losses"])) == STEPS
    measure(f"{label}, losses", np.array(state.losses), np.array(want["losses"]), LOSS_BOUND[dtype])
    assert max(errors) <= LOSS_BOUND[dtype], errors
    shapes = {key: value.shape for key, value in task.values.items()}
    for what, vector, expected in [("weights", state.vector, "weights"), ("moving average", state.average, "average")]:
        arrays = unflatten_vector(vector, shapes)
        keys = [key for key in arrays if not key.endswith(WITHOUT_EFFECT)]
        got = np.concatenate([arrays[key].ravel() - task.values[key].ravel() for key in keys])
        both = np.concatenate([(want[expected][key].detach().numpy() - task.values[key]).ravel() for key in keys])
        measure(f"{label}, change of the {what}", got, both, WEIGHT_BOUND[dtype])


# Their gradient is rounding noise around zero, which AdamW blows up to full steps: no two programs agree on them.
WITHOUT_EFFECT = ("k_proj.bias", "to_k.bias")


def trainable(model: torch.nn.Module, prefix: str) -> dict[str, torch.nn.Parameter]:
    """A model's parameters under our names, with gradients."""
    return {prefix + key: p.requires_grad_() for key, p in model.named_parameters()}


def autoencoder(dtype: type) -> tuple[FixedTask, Callable[[], dict]]:
    """The training of an autoencoder in ours, and in torch."""
    data = VAES["two levels"]
    config = vae.VAEConfig.from_dict(data)
    params = random_params(vae.declare(config), dtype)

    def batch(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(step)
        sizes = {"images": (4, 3, 12, 16), "noise": (4, 4, 6, 8)}
        arrays = {name: rng.standard_normal(size).astype(dtype) for name, size in sizes.items()}
        return {**arrays, "pixel_weight": rng.uniform(0.5, 3.0, (4, 1, 12, 16)).astype(dtype)}

    def loss(p: Any, b: Mapping[str, Any]) -> Any:
        return losses.vae_loss(p, config, b["images"], b["noise"], b["pixel_weight"], mse_weight=0.7, kl_weight=1e-2)

    def in_torch() -> dict:
        model = upstream.vae(data, params)

        def torch_loss(step: int) -> torch.Tensor:
            images, noise, weight = (tensor(batch(step)[name]) for name in ("images", "noise", "pixel_weight"))
            posterior = model.encode(images).latent_dist
            error = model.decode(posterior.mean + posterior.std * noise).sample - images
            kl = 0.5 * (posterior.mean**2 + posterior.var - 1.0 - posterior.logvar)
            return (error.abs() * weight).mean() + 0.7 * (error**2 * weight).mean() + 1e-2 * kl.mean()

        return theirs(trainable(model, ""), torch_loss)

    return FixedTask(flatten(params), batch, loss), in_torch


@pytest.mark.parametrize("dtype", LOSS_BOUND)
@pytest.mark.parametrize("kernels", MODES)
def test_the_autoencoder(kernels, dtype, measure):
    task, in_torch = autoencoder(dtype)
    with mode(kernels):
        state = ours(task)
    compare(measure, f"VAE, {np.dtype(dtype).name}, {kernels}", state, in_torch(), task, dtype)


WRONG_GRADIENTS = ["conv2d", "group_norm_silu", "attention", "linear", "upsample_conv2d", "square"]


def test_a_gradient_that_is_wrong_by_a_tenth_is_seen(monkeypatch, record_property):
    task, in_torch = autoencoder(np.float32)
    want = in_torch()["losses"]
    for name in WRONG_GRADIENTS:
        op = PRIMITIVES[name]

        def wrong(g, out, *args, rule=op.vjp.spec, **constants):
            first, *others = rule(g, out, *args, **constants)
            return (first * np.float32(1.1), *others)

        with monkeypatch.context() as patch:
            patch.setattr(op, "vjp", Primitive(wrong, None))
            error = upstream.relative_error(np.array(ours(task).losses), np.array(want))
        record_property("wrong gradient", (name, error))
        print(f"{name}, gradient wrong by a tenth: {error:.1e}")
        assert error > LOSS_BOUND[np.float32]


@pytest.mark.parametrize("dtype", LOSS_BOUND)
@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_unet_with_its_text_encoder(prediction_type, kernels, dtype, measure):
    config, text_config = (
        unet.UNetConfig.from_dict(UNETS["two levels"]),
        clip_text.CLIPTextConfig.from_dict(CLIP_CONFIG),
    )
    net, text = random_params(unet.declare(config), dtype), random_params(clip_text.declare(text_config), dtype, seed=1)
    values = {f"unet.{k}": v for k, v in flatten(net).items()} | {f"text_encoder.{k}": v for k, v in flatten(text).items()}
    alphas = ALPHAS.astype(dtype)

    def batch(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(step)
        arrays = {name: rng.standard_normal((4, 4, 9, 6)).astype(dtype) for name in ("x0", "noise")}
        ids = np.concatenate([np.full((4, 1), 48), rng.integers(3, 48, (4, 5)), np.full((4, 2), 49)], axis=1)
        weight = rng.uniform(0.5, 3.0, (4, 1, 9, 6)).astype(dtype)
        return {**arrays, "t": rng.integers(0, 1000, 4), "ids": ids, "weight": weight}

    def loss(p: Any, b: Mapping[str, Any]) -> Any:
        noisy, target = losses.noised(b["x0"], b["noise"], alphas[b["t"]], prediction_type=prediction_type)
        return losses.diffusion_loss(p, config, text_config, noisy, target, b["t"], b["ids"], b["weight"])

    task = FixedTask(values, batch, loss)
    with mode(kernels):
        state = ours(task)

    network, encoder = upstream.unet(UNETS["two levels"], net), upstream.clip_text(CLIP_CONFIG, text)

    def torch_loss(step: int) -> torch.Tensor:
        b = {name: tensor(value) for name, value in batch(step).items()}
        a = tensor(alphas)[b["t"]].sqrt()[:, None, None, None]
        s = (1.0 - tensor(alphas)[b["t"]]).sqrt()[:, None, None, None]
        target = b["noise"] if prediction_type == "epsilon" else a * b["noise"] - s * b["x0"]
        context = encoder(b["ids"]).last_hidden_state
        prediction = network(a * b["x0"] + s * b["noise"], b["t"], context).sample
        return (((prediction - target) ** 2) * b["weight"]).mean()

    parameters = trainable(network, "unet.") | trainable(encoder, "text_encoder.text_model.")
    with sinusoids_for(dtype):
        want = theirs(parameters, torch_loss)
    label = f"U-Net and text, {prediction_type}, {np.dtype(dtype).name}, {kernels}"
    compare(measure, label, state, want, task, dtype)
