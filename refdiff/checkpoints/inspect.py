"""What a checkpoint is, from its headers and configurations alone: no value is read, nothing is printed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refdiff.checkpoints.component import component_folder, open_config
from refdiff.checkpoints.errors import CheckpointError
from refdiff.checkpoints.files import read_json
from refdiff.checkpoints.folder import INDEX, read_model_index
from refdiff.checkpoints.schema import Match, match_keys, refuse_mismatch
from refdiff.checkpoints.weights import StoredWeights, find_weights
from refdiff.core import architecture
from refdiff.core.params import Leaf, flatten_declaration

# The options that say most about a network's size and use, by class.
TOLD = {
    "UNet2DConditionModel": "block_out_channels layers_per_block cross_attention_dim heads in_channels".split(),
    "AutoencoderKL": "block_out_channels layers_per_block latent_channels downscale scaling_factor".split(),
    "CLIPTextModel": "num_hidden_layers hidden_size num_attention_heads vocab_size hidden_act".split(),
}
NEEDED = ("tokenizer", "scheduler")
SD1_WIDTHS, SD1_CONTEXT = (320, 640, 1280, 1280), 768


@dataclass(frozen=True)
class ComponentReport:
    """One network: what it is, what it holds, and what does not fit. The lists of keys are empty where all is well."""

    name: str
    class_name: str
    files: tuple[str, ...] = ()
    tensors: int = 0
    parameters: int = 0
    size: int = 0  # bytes
    dtypes: Mapping[str, int] = field(default_factory=dict)  # dtype -> number of tensors
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # key in the file -> shape
    summary: Mapping[str, Any] = field(default_factory=dict)  # the options that say most
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    problem: str = ""  # the error with which it would not open, "" if it opens


@dataclass(frozen=True)
class Report:
    """A whole checkpoint; `others` are the parts that are not networks of ours, such as tokenizer and scheduler."""

    folder: Path
    family: str
    pipeline: str
    components: tuple[ComponentReport, ...]
    others: Mapping[str, str]
    scheduler: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """The number of parameters of all networks."""
        return sum(component.parameters for component in self.components)

    @property
    def size(self) -> int:
        """The bytes of all networks."""
        return sum(component.size for component in self.components)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it would not open; empty if it opens."""
        return (*(component.problem for component in self.components if component.problem), *self.lacking)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which of the parts that are not networks, but needed to draw, have no folder."""
        needed = [self.folder / name for name in NEEDED if self.pipeline]
        return tuple(f"the folder {path} is missing" for path in needed if not path.is_dir())


def inspect(folder: Path | str) -> Report:
    """Say what a diffusers folder holds, or a folder of one component.

    Raises: CheckpointError for a folder that is neither; what is wrong inside a component stands in its report
    """
    folder = Path(folder)
    if (folder / "config.json").is_file() and not (folder / INDEX).exists():
        component = inspect_component(folder.parent, folder.name)
        return Report(folder, f"one component: {component.class_name}", "", (component,), {}, {})
    index = read_model_index(folder)
    classes = {name: entry[1] for name, entry in index.items() if _is_class(entry)}
    networks = [name for name, named in classes.items() if named in architecture.known()]
    components = tuple(inspect_component(folder, name) for name in networks)
    others = {name: named for name, named in classes.items() if name not in networks}
    pipeline = str(index.get("_class_name", ""))
    return Report(folder, _family(pipeline, components), pipeline, components, others, _scheduler(folder, classes))


def inspect_component(folder: Path, name: str) -> ComponentReport:
    """Say what one component holds; problems stand in the report, they are not raised."""
    try:
        path = component_folder(folder, name)
        family, config = open_config(path)
    except CheckpointError as error:
        return ComponentReport(name, "", problem=str(error))
    told = {option: getattr(config, option) for option in TOLD.get(family.class_name, ())}
    try:
        stored = find_weights(path)
    except CheckpointError as error:
        return ComponentReport(name, family.class_name, summary=told, problem=str(error))
    declared = flatten_declaration(family.declare(config))
    match = match_keys(family.class_name, declared, stored.entries())
    return _report(name, family.class_name, stored, declared, match, told)


def _report(
    name: str, family: str, stored: StoredWeights, declared: Mapping[str, Leaf], match: Match, told: Mapping[str, Any]
) -> ComponentReport:
    entries = stored.entries()
    problem = ""
    try:
        refuse_mismatch(match, stored, declared, family)
    except CheckpointError as error:
        problem = str(error)
    return ComponentReport(
        name,
        family,
        files=tuple(path.name for path in stored.headers),
        tensors=len(entries),
        parameters=sum(math.prod(entry.shape) for key, entry in entries.items() if key not in match.ignored),
        size=sum(entry.end - entry.begin for entry in entries.values()),
        dtypes=dict(Counter(entry.dtype for entry in entries.values())),
        shapes={key: entry.shape for key, entry in entries.items()},
        summary=told,
        missing=match.missing,
        unknown=match.unknown,
        misshapen=match.misshapen,
        twice=match.twice,
        ignored=match.ignored,
        problem=problem,
    )


def _family(pipeline: str, components: tuple[ComponentReport, ...]) -> str:
    unets = [c.summary for c in components if c.class_name == "UNet2DConditionModel" and c.summary]
    if not pipeline.startswith("StableDiffusion") or not unets:
        return f"unknown: {pipeline or 'model_index.json names no pipeline'}"
    if unets[0]["block_out_channels"] == SD1_WIDTHS and unets[0]["cross_attention_dim"] == SD1_CONTEXT:
        return "Stable Diffusion 1.x"
    return "Stable Diffusion 1.x in other sizes"


def _scheduler(folder: Path, classes: Mapping[str, str]) -> Mapping[str, Any]:
    path = folder / "scheduler" / "scheduler_config.json"
    return read_json(path) if "scheduler" in classes and path.is_file() else {}


def _is_class(entry: Any) -> bool:
    return type(entry) is list and len(entry) == 2 and all(type(part) is str for part in entry)
