"""What `refdiff generate` does around a picture: its file, the pictures of its steps, and what is told meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


def output_files(output: Path, count: int) -> list[Path]:
    """The files of `count` pictures.  Raises: BadRequest if the folder is missing or the name is not a PNG's"""
    from refdiff.errors import BadRequest

    if output.suffix.lower() != ".png":
        raise BadRequest(f"{output}: the name of the picture must end in .png")
    if output.is_dir():
        raise BadRequest(f"{output} is a folder: name a file in it")
    if not output.parent.is_dir():
        raise BadRequest(f"the folder {output.parent} does not exist: make it first (mkdir -p {output.parent})")
    if not os.access(output.parent, os.W_OK):
        raise BadRequest(f"the folder {output.parent} cannot be written to: name another")
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{k}{output.suffix}") for k in range(1, count + 1)]


def save_png(image: Any, file: Path, recipe: dict[str, Any]) -> None:
    """Write a PNG that carries its recipe; it appears whole or not at all.  Raises: BadRequest where the disk is full"""
    import io
    import json

    from PIL.PngImagePlugin import PngInfo

    from refdiff.checkpoints.files import replacing

    info = PngInfo()
    info.add_itxt("refdiff", json.dumps(recipe, ensure_ascii=False))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    with replacing(file, size=buffer.tell()) as target:
        target.write(buffer.getvalue())


def save_step(pipe: Any, step: Any, folder: Path, k: int, count: int) -> None:
    """Decode what a step takes the picture to be and save it as step-001.png (or image-1-step-001.png)."""
    from refdiff.pipelines.text_to_image import pictures
    from refdiff.xp import to_host

    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step.index + 1:03d}.png" if count == 1 else f"image-{k + 1}-step-{step.index + 1:03d}.png"
    image = pictures(pipe, to_host(step.denoised))[0]
    save_png(image, folder / name, {"step": step.index + 1, "sigma_after": float(step.sigma)})


def check_preview(pipe: Any, file: Path) -> None:
    """Raises: BadRequest for a file that cannot be written, or a model of whose latents no colours are known"""
    from refdiff.pipelines.preview import colours_of

    output_files(file, 1)
    colours_of(pipe)


def save_preview(pipe: Any, step: Any, file: Path) -> None:
    """What a step takes the picture to be, without the decoder, over the one of the step before."""
    from refdiff.pipelines.preview import preview
    from refdiff.xp import to_host

    save_png(preview(pipe, to_host(step.denoised))[0], file, {"step": step.index + 1})


def announce_compilation() -> None:
    """One line when the kernels have not been compiled on this machine yet."""
    from refdiff.kernels.cpu import compiled_before

    if not compiled_before():
        click.echo("refdiff: compiling the kernels once for this machine (some seconds)", err=True)


def progress_bar(total: int, *, quiet: bool) -> Any:
    """A bar on standard error with the time left and the seconds a step."""
    from tqdm import tqdm

    form = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_inv_fmt}]"
    return tqdm(total=total, unit="step", disable=quiet, bar_format=form, leave=False)
