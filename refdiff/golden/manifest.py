"""The manifest of a trace as text: what it must say, checked before anything of it is used.

docs/golden/manifest.schema.json tells the same as a JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import parse_object
from refdiff.errors import BadRequest

EMBEDDED = "embedded"  # the name of the model that comes with refdiff, for which no folder need be given
FORMAT_VERSION = "1.0.0"  # semantic: a new first number is another layout

# What a run may be asked for; nothing that names a file.
INPUTS = {
    "prompt", "negative_prompt", "steps", "sampler", "guidance", "guidance_rescale", "guidance_interval", "seed", "rng", "width",
    "height", "eta", "timesteps", "sigmas", "extras",
}  # fmt: skip


def parse_manifest(path: Path, text: str | None) -> dict[str, Any]:
    """The manifest that a text spells; an empty one where there is no text.

    Raises: BadRequest for what is not JSON, is of another version, or does not say what a manifest must
    """
    if text is None:
        return {}
    try:
        manifest = parse_object(text.encode("utf-8", "surrogatepass"), path)
    except CheckpointError as error:
        raise BadRequest(f"{path}: its manifest {error.problem[:200]}") from error
    version = manifest.get("format_version")
    if not isinstance(version, str) or version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise BadRequest(f"{path}: its format is {str(version)[:20]!r}, this program reads {FORMAT_VERSION}")
    for problem in problems(manifest):
        raise BadRequest(f"{path}: its manifest {problem}")
    return manifest


def problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What in a manifest cannot be as it is."""
    order, tensors = manifest.get("order"), manifest.get("tensors")
    if not isinstance(tensors, dict) or not all(isinstance(facts, dict) for facts in tensors.values()):
        yield "does not say which tensors there are"
    elif not all(_are_bounds(facts.get("bounds", {})) for facts in tensors.values()):
        yield "has bounds that are no numbers"
    if not isinstance(order, list) or not _are_texts(order) or len(set(order)) != len(order):
        yield "does not say in which order its tensors were made"
    if not _are_texts(manifest.get("unsupported", [])):
        yield "has a list of unsupported tensors that is no list of names"
    inputs = manifest.get("inputs", {"prompt": "", "negative_prompt": ""})
    if not isinstance(inputs, dict) or not {"prompt", "negative_prompt"} <= set(inputs):
        yield "does not say which prompts its run had"
    elif not _are_texts(inputs.get("extras", [])):
        yield "asks for extras that are no list of names"
    elif not set(inputs) <= INPUTS:
        yield f"asks for {min(set(inputs) - INPUTS)[:40]!r}, which no trace is made with"
    about = manifest.get("about", {})
    if not isinstance(about, dict) or not _are_texts(about.get("notes", [])):
        yield "has facts about its run that are no table, or notes that are no list of texts"
    model = manifest.get("model", {})
    if not isinstance(model, dict) or not all(isinstance(value, str) for value in model.values()):
        yield "does not say of which model it is"


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _are_bounds(bounds: Any) -> bool:
    """{kind: {"added": number, "whole": number, ...}}"""
    if not isinstance(bounds, dict) or not all(isinstance(told, dict) for told in bounds.values()):
        return False
    numbers = [told[key] for told in bounds.values() for key in ("added", "whole") if key in told]
    return all(isinstance(n, int | float) and not isinstance(n, bool) and 0.0 <= n < float("inf") for n in numbers)
