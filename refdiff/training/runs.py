"""The trainings that make a small model, from random weights to a folder that diffusers opens.

First the autoencoder, then the U-Net with its text encoder on the latents of that autoencoder, and, for sharper pictures of the
same latents, the decoder alone. Each is a generator of
states that can be stopped at any moment, and goes on where it was when it is called again with the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from refdiff.checkpoints import open_component, save_component
from refdiff.core.params import Declaration, Params, flatten, flatten_declaration, map_arrays, tree
from refdiff.errors import BadRequest
from refdiff.models import clip_text, unet, vae
from refdiff.training import recipes
from refdiff.training.curve import draw_loss_curve
from refdiff.training.data import Pictures
from refdiff.training.loop import State, averaged, read_arrays, save_state, step_random, train, write_atomically
from refdiff.training.optimizer import OptimizerSettings
from refdiff.training.unet_task import LatentSet, UNetTask, encode_pictures
from refdiff.training.vae_task import DecoderTask, VAETask

MODEL = "model"  # the folder, inside a run's, that holds what was trained
LATENTS = "latents.npz"  # the file, inside a run's folder, that keeps the encoded pictures
ENCODE_BATCH, ENCODE_CHUNK = 16, 160  # pictures in one call of the encoder, and between two reports of progress


@dataclass(frozen=True)
class Run:
    """Where a run is kept, its number of updates, its seed, and the folder of a model to start from if there is one."""

    folder: Path
    steps: int
    seed: int
    device: str
    save_seconds: float
    start: Path | None


def train_vae(run: Run, pictures: Pictures) -> Iterator[State]:
    """Train an autoencoder; at the end the folder holds model/vae and loss.png."""
    start = None if run.start is None else _start(run.start, "vae", vae.declare(recipes.VAE))
    task = VAETask(
        recipes.VAE, pictures, start, run.seed, whole_from=int(recipes.VAE_WHOLE_FROM * run.steps),
        **recipes.VAE_BATCH, **recipes.VAE_LOSS,
    )  # fmt: skip
    state = None
    for state in _steps(task, recipes.VAE_OPTIMIZER, run):
        yield state
    assert state is not None
    params = tree(averaged(state, task))
    images, _, _ = pictures.batch(step_random(run.seed, 0), 512)
    latents = encode_pictures(params, recipes.VAE, images, batch_size=ENCODE_BATCH)
    config = replace(recipes.VAE, scaling_factor=round(float(1.0 / latents.std()), 4))
    save_component(run.folder / MODEL, "vae", config, params, dtype="float32")
    draw_loss_curve(state.losses, run.folder / "loss.png", title=f"autoencoder, {state.step} steps")


def train_decoder(run: Run, pictures: Pictures) -> Iterator[State]:
    """Train the decoder of the autoencoder in `run.start` further; at the end the folder holds model/vae and loss.png.

    Raises: BadRequest without a model to start from
    """
    if run.start is None:
        raise BadRequest("a decoder is trained for an encoder that is there: name its model folder with --start")
    config, _ = open_component(run.start, "vae")
    start = _start(run.start, "vae", vae.declare(config))
    task = DecoderTask(config, pictures, start, run.seed, **recipes.DECODER)
    state = None
    for state in _steps(task, recipes.DECODER_OPTIMIZER, run):
        yield state
    assert state is not None
    save_component(run.folder / MODEL, "vae", config, tree({**start, **averaged(state, task)}), dtype="float32")
    draw_loss_curve(state.losses, run.folder / "loss.png", title=f"decoder, {state.step} steps")


def train_unet(run: Run, data: LatentSet, *, vocabulary: int, alphas_cumprod: np.ndarray) -> Iterator[State]:
    """Train a U-Net and its text encoder; at the end the folder holds model/unet, model/text_encoder and loss.png."""
    start = None
    if run.start is not None:
        start = {
            **_prefixed("unet", _start(run.start, "unet", unet.declare(recipes.UNET))),
            **_prefixed("text_encoder", _start(run.start, "text_encoder", clip_text.declare(recipes.text_config(vocabulary)))),
        }
    task = UNetTask(
        recipes.UNET, recipes.text_config(vocabulary), data, alphas_cumprod, start, run.seed,
        prediction_type=recipes.PREDICTION_TYPE, plain_from=int(recipes.UNET_PLAIN_FROM * run.steps), **recipes.UNET_BATCH,
    )  # fmt: skip
    state = None
    try:
        for state in _steps(task, recipes.UNET_OPTIMIZER, run):
            yield state
    finally:  # also when it is stopped: the weights so far are a model too
        if state is not None:
            save_unet(run, task, state)


def save_unet(run: Run, task: UNetTask, state: State) -> None:
    """Write the averaged weights of a U-Net's run as a model."""
    params = tree(averaged(state, task))
    for name, config in (("unet", task.config), ("text_encoder", task.text_config)):
        part = tree(flatten_from(params, name))
        save_component(run.folder / MODEL, name, config, part, dtype="float32")
    draw_loss_curve(state.losses, run.folder / "loss.png", title=f"U-Net and text encoder, {state.step} steps")


def latent_set(
    run: Run, pictures: Pictures, vae_folder: Path, *, encode: Callable[[str], Sequence[int]], count: int,
    progress: Callable[[int, int], None],
) -> LatentSet:  # fmt: skip
    """Encode `count` pictures and captions once and keep them in the run's folder; a run that goes on finds them there."""
    path = run.folder / LATENTS
    if not path.exists():
        config, params = open_component(vae_folder, "vae")
        if (config.latent_channels, config.downscale) != (recipes.UNET.in_channels, recipes.VAE.downscale):
            raise BadRequest(
                f"{vae_folder} makes {config.latent_channels} channels, 1/{config.downscale} as wide; the U-Net takes"
                f" {recipes.UNET.in_channels}, 1/{recipes.VAE.downscale} as wide: name an autoencoder of `refdiff train vae`"
            )
        run.folder.mkdir(parents=True, exist_ok=True)
        params = map_arrays(lambda a: np.asarray(a, dtype=np.float32), params)
        latents, things, ids = [], [], []
        for first in range(0, count, ENCODE_CHUNK):
            images, masks, captions = pictures.batch(step_random(run.seed, first), min(ENCODE_CHUNK, count - first))
            latents.append(encode_pictures(params, config, images, batch_size=ENCODE_BATCH) * np.float32(config.scaling_factor))
            things.append(shrink(masks, config.downscale))
            ids += [list(encode(caption)) for caption in captions]
            progress(min(first + ENCODE_CHUNK, count), count)
        made = LatentSet(np.concatenate(latents), np.concatenate(things), np.array(ids), np.array(list(encode(""))))
        write_atomically(path, lambda f: np.savez(f, latents=made.latents, things=made.things, ids=made.ids, empty=made.empty))
    return LatentSet(**read_arrays(path, [field.name for field in fields(LatentSet)]))


def copy_vae(source: Path, target: Path) -> None:
    """The autoencoder of one model folder in another."""
    config, params = open_component(source, "vae")
    save_component(target, "vae", config, params, dtype="float32")


def shrink(masks: np.ndarray, factor: int) -> np.ndarray:
    """The share of each block of pixels that is set.  Shapes: [B,H,W] bool -> [B,H/factor,W/factor] float32"""
    batch, height, width = masks.shape
    blocks = masks.reshape(batch, height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def flatten_from(params: Params, name: str) -> dict[str, np.ndarray]:
    """The parameters under a child of the root, with keys that begin below it."""
    return {key.removeprefix(f"{name}."): value for key, value in flatten(getattr(params, name)).items()}


def _steps(task: VAETask | DecoderTask | UNetTask, settings: OptimizerSettings, run: Run) -> Iterator[State]:
    """The states of a run; the last one is saved also when it is stopped between two saves, so that no step is lost."""
    state = None
    try:
        for state in train(task, settings, steps=run.steps, folder=run.folder, device=run.device, save_seconds=run.save_seconds):
            yield state
    finally:
        if state is not None and 0 < state.step < run.steps:
            save_state(run.folder, state)


def _start(folder: Path, name: str, declared: Declaration) -> dict[str, np.ndarray]:
    """The weights to begin with, in the order of the declaration.  Raises: BadRequest for a network of other sizes"""
    _, params = open_component(folder, name)
    stored, wanted = flatten(params), flatten_declaration(declared)
    for key in {**wanted, **stored}:
        if key not in stored or key not in wanted or stored[key].shape != wanted[key].shape:
            raise BadRequest(f"{folder / name} is a network of other sizes than the one that is trained (see {key}): start anew")
    return {key: np.asarray(stored[key], dtype=np.float32) for key in wanted}


def _prefixed(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}.{key}": value for key, value in arrays.items()}
