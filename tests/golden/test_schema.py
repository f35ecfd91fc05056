"""The schema of a manifest says what manifests are: those that are recorded obey it, and it knows what the reader checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import refdiff
from refdiff.golden import Trace, read_trace, record, write_trace
from refdiff.golden.format import NAME
from refdiff.golden.manifest import FORMAT_VERSION, INPUTS, problems
from refdiff.golden.tolerance import bounds

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/golden/manifest.schema.json").read_text(encoding="utf-8"))
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
KEYWORDS = {
    "$ref", "type", "const", "enum", "pattern", "minimum", "required", "properties", "additionalProperties", "propertyNames",
    "items", "uniqueItems", "description", "title", "$schema", "$id", "$defs",
}  # fmt: skip


def faults(x, schema, at="manifest"):
    """Where a value does not obey a schema made of the keywords above."""
    if isinstance(schema, bool):
        return [] if schema else [f"{at} should not be there"]
    if schema.keys() - KEYWORDS:
        raise ValueError(f"this checker does not know {schema.keys() - KEYWORDS}")
    if "$ref" in schema:
        return faults(x, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], at)
    found = (
        [f"{at} is of another type"] if isinstance(x, bool) or not isinstance(x, TYPES.get(schema.get("type"), object)) else []
    )
    if ("const" in schema and x != schema["const"]) or ("enum" in schema and x not in schema["enum"]):
        found.append(f"{at} is another value")
    if isinstance(x, str) and not re.search(schema.get("pattern", ""), x):
        found.append(f"{at} has other letters")
    if isinstance(x, int | float) and x < schema.get("minimum", x):
        found.append(f"{at} is too small")
    if isinstance(x, list):
        found += [f for k, item in enumerate(x) for f in faults(item, schema.get("items", True), f"{at}[{k}]")]
        found += [f"{at} has a value twice"] if schema.get("uniqueItems") and len(set(map(str, x))) < len(x) else []
    return found + (in_object(x, schema, at) if isinstance(x, dict) else [])


def in_object(x, schema, at):
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    found = [f"{at}.{key} is not there" for key in schema.get("required", []) if key not in x]
    for key, value in x.items():
        found += faults(key, schema.get("propertyNames", True), f"the name {at}.{key}")
        found += faults(value, known.get(key, rest), f"{at}.{key}")
    return found


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Of a picture of the embedded model, with every input that is plain and with bounds."""
    file = tmp_path_factory.mktemp("schema") / "t.safetensors"
    made = record(refdiff.load(), "a red circle", detail="steps", steps=1, width=16, height=16, extras=["encode"])
    told = {"float32": bounds(1e-7, {"gn-eps (outside)": 1e-5, "gn-groups (half)": 1e-8})}
    facts = {name: {"bounds": told} for name in made.tensors}
    write_trace(file, Trace(made.tensors, {**made.manifest, "tensors": facts, "unsupported": ["pixels/image"]}))
    return dict(read_trace(file).manifest)


def test_a_recorded_manifest_obeys_the_schema(manifest):
    assert faults(manifest, SCHEMA) == []
    assert set(manifest) == set(SCHEMA["properties"])


def test_the_schema_knows_every_fact_and_every_input(manifest):
    facts = {key for told in manifest["tensors"].values() for key in told}
    assert facts == set(SCHEMA["$defs"]["facts"]["properties"])
    assert set(SCHEMA["$defs"]["inputs"]["properties"]) == INPUTS
    assert re.search(SCHEMA["properties"]["format_version"]["pattern"], FORMAT_VERSION)


def test_the_names_of_the_schema_are_those_of_a_trace():
    for name in ("a", "a/b.0", "../a", "a/..", "a/../b", "a..b", "..", "/a", "a//b", "ä", ""):
        allowed = bool(NAME.fullmatch(name)) and ".." not in name.split("/")
        assert (faults(name, SCHEMA["$defs"]["name"]) == []) == allowed, name


WRONG = {
    "tensors": [None, [], {"a": 3}, *({"a": {"bounds": {"float32": told}}} for told in (3, {"added": -1}, {"whole": "x"}))],
    "order": [None, "a", [1], ["a", "a"]],
    "unsupported": [3, [3]],
    "inputs": [{}, {"prompt": ""}, {"prompt": "", "negative_prompt": "", "image": "x.png"},
               {"prompt": "", "negative_prompt": "", "extras": 3}],
    "model": [3, {"name": 3}],
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_what_the_reader_refuses_the_schema_refuses(manifest, key):
    for value in WRONG[key]:
        assert list(problems({**manifest, key: value})) and faults({**manifest, key: value}, SCHEMA), value
