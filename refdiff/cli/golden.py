"""The commands for who ports: record a golden trace, compare another program with it, name the bug, tell of a bug."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

DONE, NO = 0, 1
PATH: Any = click.Path(path_type=Path)


def model_options(command: Any) -> Any:
    """What says which model a golden trace is run again with, and in which precision."""
    for option in (
        click.option("--dtype", default="float64", show_default=True, help="float64, or float32 for large models."),
        click.option("--model", help="The model's folder."),
        click.option("--rename", type=PATH, help="A table of names with lines `theirs = golden`."),
        click.argument("golden", type=PATH),
        click.argument("theirs", type=PATH),
    ):
        command = option(command)
    return command


def report_options(command: Any) -> Any:
    """The files that a comparison can be written to."""
    for option in (
        click.option("--html", type=PATH, help="A page to write, with curves and pictures."),
        click.option("--junit", type=PATH, help="A file of test results to write, as CI systems read them."),
        click.option("--json", "json_file", type=PATH, help="A JSON file to write."),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--prompt", required=True, help="What should be in the picture.")
@click.option("--model", help="A folder in the diffusers layout.  [default: the embedded model]")
@click.option("-o", "--output", type=PATH, required=True, help="The .safetensors to write.")
@click.option("--negative", default="", help="What should not be in the picture.")
@click.option("--steps", type=int, help="Steps of the sampler.  [default: the model's, else 20]")
@click.option("--sampler", help="Any name of `refdiff samplers`.  [default: the model's scheduler]")
@click.option("--guidance", type=float, help="How strongly the text guides.  [default: the model's, else 7.5]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--rng", default="torch", show_default=True, help="The random stream: torch, numpy, cuda.")
@click.option("--width", type=int, help="Pixels.  [default: the model's]")
@click.option("--height", type=int, help="Pixels.  [default: the model's]")
@click.option("--detail", default="blocks", show_default=True, help="steps, blocks or layers: which tensors are kept.")
@click.option("--at", default="0", show_default=True, help="The calls of the U-Net that are kept: 0,5.")
@click.option("--dtype", default="float64", show_default=True, help="float64, the truth, or float32.")
@click.option("--bounds", is_flag=True, help="Measure a bound for every tensor: what right programs add, what the bugs do.")
def trace(prompt: str, negative: str, output: Path, **options: Any) -> int:
    """Draw a picture and keep what every part of the model makes, as golden tensors for other programs.

    Example: refdiff trace --prompt "a red circle" --steps 2 -o golden.safetensors
    """
    from refdiff import load
    from refdiff.errors import BadRequest
    from refdiff.golden.format import write_trace
    from refdiff.golden.recording import record

    chosen = {key: options[key] for key in ("steps", "sampler", "guidance", "seed", "rng", "width", "height")}
    check_output(output, ".safetensors")
    pipe = load(options["model"], dtype=options["dtype"], kernels=kernels_of(options["dtype"]))
    given = {key: value for key, value in chosen.items() if value is not None}
    if options["bounds"] and options["dtype"] != "float64":
        raise BadRequest("--bounds are measured from the truth: leave --dtype float64")
    at = calls_of(options["at"])
    made = record(pipe, prompt, negative, detail=options["detail"], at=at, **given)
    if options["bounds"]:
        click.echo("refdiff: measuring the bounds, with every known bug in turn (a minute or more)", err=True)
        made = bounded(pipe, made, detail=options["detail"], at=at)
    write_trace(output, made)
    click.echo(f"{output}: {len(made.tensors)} tensors, {output.stat().st_size / 1e6:.1f} MB")
    return DONE


def bounded(pipe: Any, made: Any, *, detail: str, at: Any) -> Any:
    """The trace with the bounds of every tensor in its manifest."""
    import refdiff.kernels.cpu  # noqa: F401 - one of the right programs
    from refdiff.golden.stages import Setting
    from refdiff.golden.tolerance import honest_traces, with_bounds

    inputs = made.manifest["inputs"]
    return with_bounds(made, Setting.of(pipe, inputs), honest_traces(pipe, inputs, detail=detail, at=at))


@click.command()
@model_options
@report_options
@click.option("--all", "every", is_flag=True, help="List every tensor.")
def compare(theirs: Path, golden: Path, **options: Any) -> int:
    """Compare THEIRS (a .safetensors, a .npz or a folder of .npy) with the tensors of GOLDEN, in the order of the run.

    With --model each part is run again on their inputs, and is judged by the error that it adds itself.

    Example: refdiff compare theirs golden.safetensors --html report.html
    """
    from refdiff.cli.golden_text import comparison_lines, note_lines
    from refdiff.golden.compare import compare as whole
    from refdiff.golden.manifest import EMBEDDED

    check_reports(options)
    their_trace, golden_trace = both(theirs, golden, options["rename"])
    if options["model"] is None:
        report = whole(their_trace, golden_trace)
    else:
        from refdiff.golden.added import compare_with

        report = compare_with(setting_of(golden, golden_trace, options), their_trace, golden_trace)
    model = options["model"] or ("" if golden_trace.manifest.get("model", {}).get("name") == EMBEDDED else "FOLDER")
    diagnose = f"refdiff diagnose {theirs} {golden}" + (f" --model {model}" if model else "")
    lines = comparison_lines(report, diagnose=diagnose, model=options["model"], every=options["every"])
    for line in [*lines, *note_lines(their_trace)]:
        click.echo(line)
    write_reports(options, report, (theirs, their_trace), (golden, golden_trace), None)
    return DONE if report.passed else NO


@click.command()
@model_options
@report_options
def diagnose(theirs: Path, golden: Path, **options: Any) -> int:
    """Say which known bug explains how THEIRS differs from GOLDEN, with the evidence.

    The first wrong part is run again on their inputs, as it is and with each bug in it. --model may be left out for a trace of
    the embedded model.

    Example: refdiff diagnose theirs golden.safetensors --html report.html
    """
    import numpy as np

    from refdiff.cli.golden_text import diagnosis_lines, note_lines
    from refdiff.golden.diagnosis import diagnose as find
    from refdiff.golden.story import told

    check_reports(options)
    their_trace, golden_trace = both(theirs, golden, options["rename"])
    setting = setting_of(golden, golden_trace, options)
    with np.errstate(all="ignore"):  # their numbers may be NaN or too large
        diagnosis = find(setting, their_trace, golden_trace)
    story = told(diagnosis)
    for line in [*diagnosis_lines(diagnosis.report, story), *note_lines(their_trace)]:
        click.echo(line)
    write_reports(options, diagnosis.report, (theirs, their_trace), (golden, golden_trace), story)
    return DONE if diagnosis.report.passed else NO


@click.command()
@click.argument("bug", required=False)
def explain(bug: str | None) -> int:
    """Tell what is known of BUG: what goes wrong, where to look, where it happened; without BUG, list all.

    Example: refdiff explain gn-eps
    """
    from refdiff.cli.golden_text import bug_lines, list_lines

    for line in list_lines() if bug is None else bug_lines(bug):
        click.echo(line)
    return DONE


COMMANDS = {"trace": trace, "compare": compare, "diagnose": diagnose, "explain": explain}


def kernels_of(dtype: str) -> str:
    """float64 is the truth, which is the specification's."""
    return "spec" if dtype == "float64" else "fast"


def calls_of(text: str) -> tuple[int, ...]:
    """The calls that a list means.  Raises: BadRequest"""
    from refdiff.errors import BadRequest

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise BadRequest(f"--at {text}: give whole numbers with commas between them, such as 0,5") from error


def check_output(file: Path, suffix: str) -> None:
    """Before anything is computed.  Raises: BadRequest for a file that cannot be written, or has another ending"""
    from refdiff.errors import BadRequest

    if file.suffix != suffix:
        raise BadRequest(f"{file}: its name must end in {suffix}")
    if file.is_dir() or not file.parent.is_dir():
        raise BadRequest(f"{file}: {'is a folder' if file.is_dir() else 'the folder for it does not exist'}: name another file")


def check_reports(options: dict[str, Any]) -> None:
    """Raises: BadRequest for a report that cannot be written"""
    for key, suffix in (("json_file", ".json"), ("junit", ".xml"), ("html", ".html")):
        if options[key] is not None:
            check_output(options[key], suffix)


def both(theirs: Path, golden: Path, rename: Path | None) -> tuple[Any, Any]:
    """Their trace and the golden one.

    Raises: BadRequest where one cannot be read, the golden one was changed, or they have no name in common
    """
    from refdiff.errors import BadRequest
    from refdiff.golden.format import read_trace, verify
    from refdiff.golden.naming import read_names, require_common

    golden_trace = read_trace(golden)
    changed = verify(golden_trace) if golden_trace.manifest else []
    if changed:
        raise BadRequest(f"{golden}: is not as it was recorded ({changed[0]}): record it again")
    names = None if rename is None else read_names(rename)
    if names and not set(names.values()) & set(golden_trace.tensors):
        raise BadRequest(f"{rename}: none of its golden names is in {golden}: lines are `theirs = golden`")
    their_trace = read_trace(theirs, rename=names)
    require_common(their_trace, golden_trace, (theirs, golden))
    return their_trace, golden_trace


def setting_of(path: Path, golden: Any, options: dict[str, Any]) -> Any:
    """The model and what was asked of it, so that a part can be run again.

    Raises: BadRequest where the trace does not say how it was made, or is of another model
    """
    from refdiff import load
    from refdiff.errors import BadRequest
    from refdiff.golden.stages import Setting
    from refdiff.pipelines.load import EMBEDDED

    model, told = options["model"], golden.manifest.get("model", {})
    if "inputs" not in golden.manifest or "fingerprint" not in told:
        raise BadRequest(f"{path}: does not say how its run was made: record it with `refdiff trace`")
    if model is None and told.get("name") != EMBEDDED:
        raise BadRequest(f"{path}: is of the model {told.get('name', '?')!r}: say where that is with --model FOLDER")
    pipe = load(model, dtype=options["dtype"], kernels=kernels_of(options["dtype"]))
    if pipe.source["fingerprint"] != told["fingerprint"]:
        here = f"{model or EMBEDDED} ({pipe.source['fingerprint'][:8]})"
        raise BadRequest(f"{path}: is of another model ({told.get('name')!r}, {told['fingerprint'][:8]!r}) than {here}")
    setting = Setting.of(pipe, golden.manifest["inputs"])
    first = golden.tensors.get("noise/initial")
    if first is not None and first.shape != setting.request.latent_shape:
        raise BadRequest(f"{path}: its manifest asks for latents {setting.request.latent_shape}, it has {first.shape}")
    return setting


def write_reports(
    options: dict[str, Any], report: Any, theirs: tuple[Path, Any], golden: tuple[Path, Any], story: list[dict[str, Any]] | None
) -> None:
    """The files that were asked for, and their names on standard output."""
    from refdiff.checkpoints.files import replacing

    texts: dict[Path, str] = {}
    if options["json_file"] is not None:
        from refdiff.report import as_json

        texts[options["json_file"]] = as_json(report, golden[1].manifest, story)
    if options["junit"] is not None:
        from refdiff.report import as_junit

        texts[options["junit"]] = as_junit(report)
    if options["html"] is not None:
        from refdiff.report import as_html

        names = (theirs[0].name, golden[0].name)
        texts[options["html"]] = as_html(report, theirs[1], golden[1], names=names, story=story)
    for file, text in texts.items():
        with replacing(file) as target:
            target.write(text.encode("utf-8"))
        click.echo(str(file))
