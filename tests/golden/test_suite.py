"""The conformance suite: our own text passes it, a port with a bug does not, and nothing but a pass is a pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import suite_matrix

import refdiff
import refdiff.golden.diagnosis
import refdiff.golden.recording
import refdiff.kernels.cpu
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.cli.conformance import told
from refdiff.core import primitive
from refdiff.errors import BadRequest
from refdiff.golden import Trace, mutants, suite, write_trace
from refdiff.golden.case_runs import model_of, run_case
from refdiff.golden.cases import LEVELS, REFUSALS, Case, cases
from refdiff.golden.compare import FAIL, MISSING, PASS, UNSUPPORTED
from refdiff.text import Tokenizer

STORED = suite.suite()
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "golden"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return refdiff.load(folder, kernels="spec")


def as_case(expected):
    return Case(expected.id, expected.kind, expected.constants, expected.inputs)


def test_every_case_is_stored_with_its_inputs():
    made = {case.id: case for case in cases()}
    assert list(made) == list(STORED), "run python tools/make_suite.py"
    for name, case in made.items():
        assert json.loads(json.dumps(case.constants)) == STORED[name].constants
        assert case.inputs.keys() == STORED[name].inputs.keys()
        for short, x in case.inputs.items():
            np.testing.assert_array_equal(x, STORED[name].inputs[short])
    assert {name.partition("/")[0] for name in made} == set(LEVELS)


@pytest.mark.parametrize("kernels", ["spec", "fast"])
def test_our_own_text_passes(pipe, kernels):
    for expected in STORED.values():
        case = as_case(expected)
        if expected.id in REFUSALS:
            with pytest.raises(BadRequest):
                run_case(case, model_of(case, pipe), dtype="float32")
            continue
        with primitive.mode(kernels):
            result = suite.judged(expected, run_case(case, model_of(case, pipe), dtype="float32"))
        assert result.outcome == PASS, (expected.id, result.note, [row for row in result.rows if row.outcome != PASS])


def test_a_bound_stands_between_what_is_right_and_what_is_wrong():
    """As far as a bug can be seen there: its effect is above the bound by construction, the spread below."""
    seen = 0
    for expected in STORED.values():
        for name in expected.outputs.tensors:
            for kind, told_ in expected.outputs.facts(name).get("bounds", {}).items():
                assert told_["spread"] < told_["added"], (expected.id, name, kind)
                if "mutant" in told_:
                    seen += 1
                    assert told_["added"] < told_["mutant"]["effect"]
    assert seen > 30


VARIANTS = [(m, name) for m in mutants.mutants() for name in m.variants]
MATRIX = {row["id"]: row["cases"] for row in json.loads((DOCS / "suite_matrix.json").read_text())}
# What the cases themselves have, and what no golden trace shows either: it is no bug there.
NO_BUG = {"noise-rng (torch)", "vae-scale (SD 1.x's)"}


def test_the_protocol_tells_every_kind_of_case():
    """With the names of its constants, inputs and outputs, where these are not an op's or a piece's own."""
    lines = (DOCS / "protocol.md").read_text(encoding="utf-8").splitlines()
    rows = {kind: line for line in lines if line.count("|") == 5 for kind in line.split("|")[1].strip().split(", ")}
    rows["image"] += rows["trajectory"]  # "the same"
    for case in STORED.values():
        assert case.kind in rows, case.kind
        names = {name.partition("/")[0] for name in (*case.constants, *case.inputs, *case.outputs.tensors)}
        missing = names - set(re.findall(r"\w+", rows[case.kind]))
        assert not missing or case.kind in ("op", "piece"), (case.id, missing)


def test_the_matrix_has_every_bug():
    assert list(MATRIX) == [f"{mutant.id} ({variant})" for mutant, variant in VARIANTS], "run python tools/suite_matrix.py"
    assert {name for name, failed in MATRIX.items() if not failed} == NO_BUG
    assert not NO_BUG & suite_matrix.visible(DOCS / "matrix.json")


@pytest.mark.parametrize(("mutant", "variant"), VARIANTS, ids=lambda v: getattr(v, "id", v))
def test_a_port_with_a_bug_fails(pipe, mutant, variant):
    for name in MATRIX[f"{mutant.id} ({variant})"][:1]:
        expected = STORED[name.removesuffix(suite_matrix.STOPS)]
        given = suite_matrix.with_bug(mutant, variant, expected, pipe)
        assert any(one is None or suite.judged(expected, one).outcome == FAIL for one in given), name


def test_only_a_pass_is_a_pass(capsys):
    case = STORED["L0/silu"]
    right = dict(case.outputs.tensors)
    assert suite.judged(case, right).outcome == PASS
    for given, outcome in (
        ({}, FAIL), (UNSUPPORTED, UNSUPPORTED), (MISSING, MISSING), ("it crashed", FAIL), (suite.REFUSED, FAIL),
        ({"out": right["out"] * np.float32(1.00001)}, FAIL), ({"out": right["out"] * np.nan}, FAIL),
        ({"out": right["out"][:1]}, FAIL),
    ):  # fmt: skip
        assert suite.judged(case, given).outcome == outcome
    refused = STORED["L3/refuse/no-steps"]
    assert suite.judged(refused, suite.REFUSED).outcome == PASS
    assert suite.judged(refused, {"timesteps": np.zeros(0)}).outcome == FAIL
    results = [suite.judged(case, right), suite.judged(case, UNSUPPORTED)]
    assert told(results, {"profile": "everything", "json": None}) == 1
    assert "1 pass, 1 unsupported of 2" in capsys.readouterr().out


def test_a_folder_of_outputs_is_judged(tmp_path):
    wanted = suite.chosen("sd15-text-to-image", ["L0"])
    assert suite.export(wanted, tmp_path / "in") == len(wanted) > 10
    for number, case in enumerate(wanted):
        path = tmp_path / "out" / f"{case.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number:
            np.savez(path, **case.outputs.tensors)
    found = list(suite.results(wanted, tmp_path / "out"))
    assert [result.outcome for result in found] == [MISSING] + [PASS] * (len(wanted) - 1)


def test_a_folder_of_outputs_tells_what_is_refused(tmp_path):
    wanted = [case for case in suite.chosen("samplers", []) if case.refused]
    assert len(wanted) > 2
    for case in wanted[1:]:
        path = tmp_path / f"{case.id}.refused"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [result.outcome for result in suite.results(wanted, tmp_path)] == [MISSING] + [PASS] * (len(wanted) - 1)


def test_a_profile_that_there_is_not():
    with pytest.raises(BadRequest, match='unknown profile "sd9": choose one of sd15-text-to-image'):
        suite.chosen("sd9", [])


def test_the_public_names_are_functions_and_comparing_needs_numpy_alone():
    assert all(callable(getattr(refdiff.golden, name)) for name in refdiff.golden.__all__)
    told = "import sys, refdiff.golden; print({m.split('.')[0] for m in sys.modules} & {'numba', 'scipy', 'tokenizers', 'PIL'})"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_so_does_its_command(tmp_path):
    write_trace(tmp_path / "a.safetensors", Trace({"latents/initial": np.arange(20.0)}))
    write_trace(tmp_path / "b.safetensors", Trace({"latents/initial": np.arange(1.0, 21.0)}))
    closed = "import sys; sys.modules.update(dict.fromkeys(['numba', 'llvmlite', 'scipy', 'tokenizers', 'PIL', 'safetensors']))"
    program = f"{closed}; from refdiff.cli import main; main()"
    command = [sys.executable, "-c", program, "compare", "a.safetensors", "b.safetensors"]
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr == "", run.stderr
    assert run.stdout.splitlines()[0] == "First wrong: latents/initial"
    assert "Next: refdiff diagnose a.safetensors b.safetensors --model FOLDER" in run.stdout
