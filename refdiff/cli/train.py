"""The commands that train: they put data, tokenizer, schedule and loop together, and show how it goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

Report = Callable[[int, int], None]


def run_options(command: Any) -> Any:
    """The options that every training takes."""
    for option in (
        click.option("--device", default="cpu", show_default=True, help="cpu or cuda."),
        click.option("--start", type=click.Path(path_type=Path), help="A model folder whose weights to begin with."),
        click.option(
            "--images",
            type=click.Path(path_type=Path),
            help="A folder of images with captions.  [default: the built-in set]",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            help="Of the first weights and of every batch.",
        ),
        click.option("--steps", type=click.IntRange(min=1), required=True, help="Updates in all."),
        click.argument("folder", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command("vae")
@run_options
def vae(**options: Any) -> int:
    """Train an autoencoder in FOLDER; at the end FOLDER/model/vae holds it and FOLDER/loss.png the curve.

    Example: refdiff train vae runs/vae --steps 1500
    """
    return follow(options, vae_states, RECIPE_OF_VAE)


@click.command("decoder")
@run_options
def decoder(**options: Any) -> int:
    """Train the decoder of --start's autoencoder further, for sharper pictures of the same latents, in FOLDER/model/vae.

    Example: refdiff train decoder runs/decoder --start runs/vae/model --steps 1000
    """
    return follow(options, decoder_states, RECIPE_OF_DECODER)


@click.command("unet")
@run_options
@click.option("--vae", type=click.Path(path_type=Path), required=True, help="The model folder of the autoencoder.")
def unet(**options: Any) -> int:
    """Train a U-Net and its text encoder in FOLDER; at the end FOLDER/model is a whole model that `generate` draws with.

    First 40,000 pictures are encoded, which takes minutes and begins again if it is interrupted; then every minute is kept.

    Example: refdiff train unet runs/unet --vae runs/vae/model --steps 7500
    """
    return follow(options, unet_states, RECIPE_OF_UNET)


COMMANDS = {"vae": vae, "decoder": decoder, "unet": unet}
SAVE_SECONDS = 60.0
COMMAND = "command.json"  # the file, inside a run's folder, that keeps what it was told
# The constants of refdiff/training/recipes.py that are noted beside a run, for they may change from version to version.
RECIPE_OF_VAE = ("VAE_BATCH", "VAE_LOSS", "VAE_WHOLE_FROM", "VAE_TWO_SHARE")
RECIPE_OF_DECODER = ("DECODER", "DECODER_TWO_SHARE")
RECIPE_OF_UNET = ("PREDICTION_TYPE", "BETAS", "UNET_BATCH", "UNET_PLAIN_FROM", "LATENT_COUNT", "TWO_SHARE")


def follow(options: dict[str, Any], states: Callable[[dict[str, Any], Report], Iterator[Any]], recipe: tuple[str, ...]) -> int:
    """Run a training that is a generator of states, with a progress bar; what it was told is kept beside its state."""
    from refdiff.cli import progress_bar
    from refdiff.core import primitive
    from refdiff.errors import BadRequest
    from refdiff.training import recipes

    folder = options["folder"]
    made_here = not folder.exists()
    note_command(folder, options, {name.lower(): getattr(recipes, name) for name in recipe})
    if options["device"] == "cpu":
        import refdiff.kernels.cpu  # noqa: F401 - registers

    try:
        with primitive.mode("fast"), progress_bar(options["steps"], quiet=False) as bar:
            for state in states(options, lambda done, total: bar.set_description(f"encoding {done}/{total} ")):
                bar.update(state.step - bar.n)
                recent = state.losses[-100:]
                bar.set_description(f"loss {sum(recent) / max(len(recent), 1):.4f} ")
    except BadRequest:
        forget_command(folder, made_here)
        raise
    click.echo(f"{folder / 'model'}\n{folder / 'loss.png'}")
    return 0


def note_command(folder: Path, options: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Write beside a run's state what it was told.

    Raises: BadRequest where there is something of a run that was told something else: it would go on with other data
    """
    from refdiff.checkpoints.files import read_json, write_json
    from refdiff.errors import BadRequest

    given = {name: None if options.get(name) is None else str(options[name]) for name in ("seed", "images", "start", "vae")}
    told = json.loads(json.dumps({"command": "refdiff " + " ".join(sys.argv[1:]), "given": given, "recipe": recipe}))
    file = folder / COMMAND
    if file.exists() and begun(folder):
        try:
            before = read_json(file)
            was = {**before.get("given", {}), **before.get("recipe", {})}
        except (BadRequest, TypeError) as error:
            raise BadRequest(f"{error}: remove {file} if you are sure that the run was begun with this command") from error
        for name, value in {**told["given"], **told["recipe"]}.items():
            if was.get(name, value) != value:
                raise BadRequest(
                    f"{folder} holds a run with {name} {was[name]}, not {value}: go on with that, or name another folder"
                )
    write_json(file, told)


def begun(folder: Path) -> bool:
    """Whether the folder holds something that was computed: a state, or latents."""
    from refdiff.training.loop import STATE_FILE
    from refdiff.training.runs import LATENTS

    return (folder / STATE_FILE).exists() or (folder / LATENTS).exists()


def forget_command(folder: Path, made_here: bool) -> None:
    """Leave nothing of a request that was refused before anything was computed."""
    if not begun(folder):
        for name in (COMMAND, "run.json"):
            (folder / name).unlink(missing_ok=True)
        if made_here and not any(folder.iterdir()):
            folder.rmdir()


def vae_states(options: dict[str, Any], report: Report) -> Iterator[Any]:
    """The states of `train vae`."""
    from refdiff.training import recipes
    from refdiff.training.runs import train_vae

    yield from train_vae(_run(options), _pictures(options, recipes.VAE_TWO_SHARE))


def decoder_states(options: dict[str, Any], report: Report) -> Iterator[Any]:
    """The states of `train decoder`."""
    from refdiff.training import recipes
    from refdiff.training.runs import train_decoder

    yield from train_decoder(_run(options), _pictures(options, recipes.DECODER_TWO_SHARE))


def unet_states(options: dict[str, Any], report: Report) -> Iterator[Any]:
    """The states of `train unet`; after the last one the model folder is completed."""
    from refdiff.checkpoints.folder import write_model_index, write_scheduler_config
    from refdiff.diffusion.schedule import alphas_cumprod
    from refdiff.text import build_small
    from refdiff.training import recipes, runs

    run, pictures = _run(options), _pictures(options, recipes.TWO_SHARE)
    tokenizer = build_small(pictures.words(), max_length=recipes.PROMPT_TOKENS)
    data = runs.latent_set(
        run,
        pictures,
        options["vae"],
        encode=lambda text: tokenizer.encode(text).ids,
        count=recipes.LATENT_COUNT,
        progress=report,
    )
    betas = recipes.BETAS
    alphas = alphas_cumprod(
        schedule=betas["beta_schedule"], beta_start=betas["beta_start"], beta_end=betas["beta_end"],
        count=betas["num_train_timesteps"], table="float32-torch",
    )  # fmt: skip
    yield from runs.train_unet(run, data, vocabulary=tokenizer.vocab_size, alphas_cumprod=alphas)
    model = run.folder / runs.MODEL
    runs.copy_vae(options["vae"], model)
    tokenizer.write_folder(model / "tokenizer")
    write_scheduler_config(model, recipes.SCHEDULER)
    write_model_index(model, scheduler_class=recipes.SCHEDULER["_class_name"])
    (model / "refdiff.json").write_text(json.dumps(recipes.DEFAULTS, indent=2) + "\n")


def _run(options: dict[str, Any]) -> Any:
    from refdiff.training.runs import Run

    return Run(options["folder"], options["steps"], options["seed"], options["device"], SAVE_SECONDS, options["start"])


def _pictures(options: dict[str, Any], two_share: float) -> Any:
    from refdiff.training import recipes
    from refdiff.training.data import FolderSet, ShapesSet

    if options["images"] is not None:
        return FolderSet.open(options["images"], size=recipes.VAE.sample_size)
    return ShapesSet(options["seed"], two_share, "train")
