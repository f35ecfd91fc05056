"""A small model, a golden trace of it in float64, and traces of programs with and without a bug."""

from __future__ import annotations

import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.golden import record, write_trace
from refdiff.golden.mutants import Site, mutants
from refdiff.golden.stages import Setting
from refdiff.text import Tokenizer

PROMPT = "a red circle"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return folder


@pytest.fixture(scope="session")
def golden_file(tiny, tmp_path_factory):
    file = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    pipe = refdiff.load(tiny, dtype="float64", kernels="spec")
    write_trace(file, record(pipe, PROMPT, detail="layers", steps=2, width=64, height=72))
    return file


@pytest.fixture(scope="session")
def theirs_with(tiny, golden_file, tmp_path_factory):
    """The file of a program in float32 that has a bug, by its id; right where the id is empty."""
    folder = tmp_path_factory.mktemp("theirs")

    def file_of(bug: str):
        file = folder / f"{bug or 'right'}.safetensors"
        if file.exists():
            return file
        pipe = refdiff.load(tiny, kernels="spec")
        asked = {"steps": 2, "width": 64, "height": 72}
        if not bug:
            write_trace(file, record(pipe, PROMPT, detail="layers", **asked))
            return file
        mutant = next(mutant for mutant in mutants() if mutant.id == bug)
        variant = next(iter(mutant.variants.values()))
        setting = Setting.of(pipe, {"prompt": PROMPT, "negative_prompt": "", **asked})
        with variant(Site(setting, "")) as changed:
            write_trace(file, record(changed.pipe, PROMPT, detail="layers", **asked))
        return file

    return file_of
