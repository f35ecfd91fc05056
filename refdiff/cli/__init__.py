"""The command line. All printing lives here; every command imports what it needs when it runs.

Exit codes: 0 done; 1 the answer is no; 2 the request is wrong, in one line; 3 interrupted, with what was finished kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from refdiff.cli.asked import check_options, steps_asked, steps_made, times_of
from refdiff.cli.lazy import LazyGroup
from refdiff.cli.pictures import (
    announce_compilation,
    check_preview,
    output_files,
    progress_bar,
    save_png,
    save_preview,
    save_step,
)
from refdiff.version import __version__

DONE, NO, WRONG, INTERRUPTED = 0, 1, 2, 3
PASSED = (
    "steps",
    "sampler",
    "eta",
    "guidance",
    "guidance_rescale",
    "guidance_interval",
    "rng",
    "width",
    "height",
    "image",
    "strength",
)


def main() -> None:
    """Run the command that the arguments name, and turn errors into one line and an exit code."""
    from refdiff.errors import RefdiffError

    try:
        code = refdiff.main(prog_name="refdiff", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the whole help
        click.echo(error.format_message(), err=True)
        code = WRONG
    except click.ClickException as error:
        where = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        code = _complain(error.format_message() + where)
    except RefdiffError as error:
        code = _complain(str(error))
    except MemoryError as error:
        code = _complain(
            f"there is not enough memory for this request: ask for a smaller one, such as smaller pictures ({error})"
        )
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nrefdiff: interrupted; what was finished is kept", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = DONE
    except OSError as error:  # a file or folder that is not what it should be; bugs of ours are of other kinds
        code = _complain(f"{error.filename or 'a file'}: {error.strerror or error}: name another, or mend it")
    sys.exit(code if isinstance(code, int) else DONE)


def _complain(message: str) -> int:
    click.echo("refdiff: error: " + " ".join(message.split()), err=True)
    return WRONG


@click.group(
    cls=LazyGroup,
    modules=("refdiff.cli.golden",),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="refdiff")
def refdiff() -> None:
    """Stable Diffusion written out in NumPy: draw, inspect, train, and find the bug of a port.

    Example: refdiff generate "a large red circle on a yellow background" -o out.png
    """


def _set_threads(context: click.Context, option: click.Parameter, count: int | None) -> None:
    if count is not None:
        from refdiff import use_threads

        use_threads(count)


threads_option = click.option(
    "--threads",
    envvar="REFDIFF_THREADS",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=_set_threads,
    help="Threads, of the kernels and of NumPy's products.  [default: REFDIFF_THREADS, else one a core]",
)


@refdiff.command()
@click.argument("prompt")
@click.option("--model", help="A folder in the diffusers layout.  [default: the embedded model]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
@click.option("--negative", default="", help="What should not be in the picture.")
@click.option("--steps", type=int, help="Steps of the sampler.  [default: the model's, else 20]")
@click.option("--timesteps", help="Times instead of steps: 999,850,700 or, say, StableDiffusionTimesteps, ten published ones.")
@click.option("--sampler", help="Any name of `refdiff samplers`.  [default: the model's scheduler]")
@click.option("--eta", type=float, help="The share of fresh noise, 0 to 1.  [default: the model's or the sampler's own]")
@click.option("--guidance", type=float, help="How strongly the text guides.  [default: the model's, else 7.5]")
@click.option("--guidance-rescale", type=float, help="The share, 0 to 1, by which guidance keeps its contrast.  [default: 0]")
@click.option("--guidance-interval", type=(float, float), metavar="LOW HIGH", help="Guide between these sigmas alone.")
@click.option("--seed", type=int, default=0, show_default=True, help="The picture's number; the next picture takes the next.")
@click.option("--rng", default="torch", show_default=True, help="The random stream: torch, numpy, cuda or, say, cuda:108x2048.")
@click.option("--width", type=int, help="Pixels.  [default: the model's]")
@click.option("--height", type=int, help="Pixels.  [default: the model's]")
@click.option("--image", type=click.Path(path_type=Path), help="A picture to begin with; its size is the default one.")
@click.option("--strength", type=float, help="With --image: what share of the way is made, 0 to 1.  [default: 0.8]")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures: out-1.png, out-2.png, ...")
@click.option("--save-steps", type=click.Path(path_type=Path), help="A folder for the picture at every step.")
@click.option("--preview", type=click.Path(path_type=Path), help="A PNG that shows the newest step, coarsely; costs no time.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    help="float32, float64, or bfloat16: weights of two bytes, products too where the processor has them.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--kernels", default="fast", show_default=True, help="fast, or spec for the written-out operations alone.")
@click.option("--low-memory", is_flag=True, help="Each network is in memory only while it works: less memory, somewhat slower.")
@threads_option
@click.option("--quiet", is_flag=True, help="No progress bar.")
def generate(prompt: str, **options: Any) -> int:
    """Draw a picture from PROMPT.

    Example: refdiff generate "a small blue cross on a white background" --seed 7 -o out.png
    """
    from refdiff import load
    from refdiff.pipelines.text_to_image import check_prompt

    files = output_files(options["output"], options["count"])
    check_options(options)
    pipe = load(options["model"], **{name: options[name] for name in ("device", "dtype", "kernels", "low_memory")})
    if options["preview"] is not None:
        check_preview(pipe, options["preview"])
    for name, text in (("", prompt), ("--negative: ", options["negative"])):
        for warning in check_prompt(pipe, text):
            click.echo(f"refdiff: warning: {name}{warning}", err=True)
    passed = {name: options[name] for name in PASSED}
    steps = passed["steps"] = steps_asked(pipe, options)
    passed["timesteps"] = times_of(options["timesteps"])
    if options["kernels"] == "fast" and options["device"] == "cpu" and not options["quiet"]:
        announce_compilation()
    with progress_bar(steps_made(steps, options) * len(files), quiet=options["quiet"]) as bar:
        for k, file in enumerate(files):

            def after(step: Any, k: int = k) -> None:
                bar.update(1)
                if options["save_steps"] is not None:
                    save_step(pipe, step, options["save_steps"], k, len(files))
                if options["preview"] is not None:
                    save_preview(pipe, step, options["preview"])

            out = pipe(prompt, options["negative"], seed=options["seed"] + k, callback=after, **passed)
            save_png(out.images[0], file, {**out.recipe, "prompt": prompt})
            bar.write(str(file), file=sys.stdout)
    return DONE


@refdiff.command()
@click.argument("model", required=False)
def inspect(model: str | None) -> int:
    """Say what MODEL is (default: the embedded model): family, sizes, parameters, dtype, keys that do not fit.

    Example: refdiff inspect path/to/stable-diffusion-v1-5
    """
    from refdiff.checkpoints.inspect import inspect as look
    from refdiff.pipelines.load import model_folder

    report = look(model_folder(model))
    click.echo(f"{report.folder}: {report.family}")
    for part in report.components:
        dtypes = ", ".join(f"{n} {name}" for name, n in part.dtypes.items())
        click.echo(f"  {part.name}: {part.class_name}, {part.parameters:,} parameters, {part.size / 1e6:.1f} MB ({dtypes})")
        for name, value in part.summary.items():
            click.echo(f"    {name}: {value}")
        for label in ("missing", "unknown", "misshapen", "twice", "ignored"):
            for key in getattr(part, label):
                click.echo(f"    {label}: {key}")
        if part.problem:
            click.echo(f"    problem: {part.problem}")
    for name, kind in report.others.items():
        click.echo(f"  {name}: {kind}")
    problems = report.lacking or (() if report.problems else unlike(report.folder))
    for problem in problems:
        click.echo(f"  problem: {problem}")
    click.echo(f"  in all {report.parameters:,} parameters, {report.size / 1e6:.1f} MB")
    return NO if report.problems or problems else DONE


def unlike(folder: Path) -> tuple[str, ...]:
    """Why the parts of a model, each of them sound, do not go together; empty if they do."""
    from refdiff.errors import BadRequest
    from refdiff.pipelines.parts import CONFIGS, check_folder

    try:
        if all((folder / name).is_dir() for name in CONFIGS):
            check_folder(folder)
    except BadRequest as error:
        return (str(error),)
    return ()


@refdiff.command()
@click.argument("kind", metavar="sd15|tiny")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dtype", default="float32", show_default=True, help="float32 or float16.")
@click.option("--seed", type=int, default=0, show_default=True)
def synth(kind: str, folder: Path, dtype: str, seed: int) -> int:
    """Write a synthetic checkpoint: full size (sd15, 4.3 GB in float32) or tiny, the same weights everywhere.

    Example: refdiff synth tiny path/to/new-folder
    """
    from tqdm import tqdm

    from refdiff.checkpoints.synthetic import write_synthetic
    from refdiff.text import Tokenizer

    with tqdm(unit="B", unit_scale=True, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_synthetic(kind, folder, progress, seed=seed, dtype=dtype, write_tokenizer=Tokenizer.clip().write_folder)
    click.echo(str(folder))
    return DONE


@refdiff.command()
def samplers() -> int:
    """List every sampler: its names here and elsewhere, its order, its calls of the network, and where it is published.

    The names of a line are for one sampler, but a program's name brings that program's schedule and conventions with it. After
    the list stand the schedules in which a name may end, and the rule by which a name is looked up: case, blanks and "_" do not
    matter; the names here come before those of other programs, unless they are written as AUTOMATIC1111 writes them ("Euler a",
    "DPM++ 2M Karras") or with a program before a colon ("comfyui:euler karras").

    Example: refdiff samplers
    """
    from refdiff.cli.samplers import lines

    for line in lines():
        click.echo(line)
    return DONE


@refdiff.command(name="conformance")
@click.option("--profile", default="sd15-text-to-image", show_default=True, help="The cases that a port must pass to claim it.")
@click.option("--level", multiple=True, type=click.Choice(["L0", "L1", "L2", "L3", "L4", "L5"]), help="These levels alone.")
@click.option(
    "--outputs", type=click.Path(path_type=Path), help="Judge a folder: ID.safetensors, .npz, .refused or ID/*.npy a case."
)
@click.option("--runner", metavar="COMMAND", help="Judge a program that answers as docs/golden/protocol.md says.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Its seconds a case."
)
@click.option("--export", type=click.Path(path_type=Path), help="Write the inputs of the cases to a folder.")
@click.option("--self", "own", type=click.Choice(["spec", "fast"]), help="Judge refdiff itself, by that kind of kernels.")
@click.option("--json", type=click.Path(path_type=Path), help="Write the results to a file.")
def conformance_command(**options: Any) -> int:
    """Run the conformance suite: ops, blocks, networks, schedules, trajectories and pictures with bounds that were measured.

    Example: refdiff conformance --export cases; your port then writes out/ID.npz for each; refdiff conformance --outputs out
    """
    from refdiff.cli.conformance import conformance

    return conformance(options)


@refdiff.command()
@click.option("--model", help="A folder in the diffusers layout.  [default: the embedded model]")
@click.option("--size", type=int, help="Pixels along each side.  [default: the model's]")
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Runs, of which the fastest counts.")
@click.option(
    "--explain", is_flag=True, help="List the operations: how often, how long, and which ran without a kernel, and why."
)
@click.option("--dtype", default="float32", show_default=True, help="As `refdiff generate` has it.")
@click.option("--kernels", default="fast", show_default=True, help="fast, or spec for the written-out operations alone.")
@click.option("--low-memory", is_flag=True, help="As `refdiff generate` with it.")
@threads_option
def bench(**options: Any) -> int:
    """Time one guided step of the U-Net and one decoding, on this machine.

    Example: refdiff bench --explain
    """
    from refdiff.cli.bench import report

    for line in report(**options):
        click.echo(line)
    return DONE


@refdiff.group(cls=LazyGroup, modules=("refdiff.cli.train",))
def train() -> None:
    """Train a small model from nothing: first `vae`, then `unet` on the latents of that autoencoder.

    A run can be stopped at any moment; the same command goes on where it was.

    Example: refdiff train vae runs/vae --steps 1500
    """


if __name__ == "__main__":
    main()
