"""The header of a safetensors file: every lie is found, and no damage does worse than an error that names the file."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.checkpoints import CheckpointError, read_safetensors
from refdiff.checkpoints.header import HEADER_LIMIT, Entry, format_header, parse_header, read_header
from refdiff.errors import RefdiffError
from tests.checkpoints.folders import safetensors_bytes


def entry(begin, end, *, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWO = {"a": entry(0, 8, shape=[2]), "b.c": entry(8, 16, shape=[1, 2])}
GOOD = safetensors_bytes(TWO, np.arange(4, dtype="<f4").tobytes())

# name -> (file, key that the message must name, words that it must hold)
WRONG = {
    "empty file": (b"", None, "truncated"),
    "seven bytes": (b"\0" * 7, None, "truncated"),
    "header cut short": (GOOD[:20], None, "truncated"),
    "data cut short": (GOOD[:-1], "b.c", "beyond the end"),
    "no data": (safetensors_bytes(TWO, b""), "a", "beyond the end"),
    "trailing bytes": (GOOD + b"\0\0\0", None, "3 bytes that belong to no tensor"),
    "header too long": (struct.pack("<Q", HEADER_LIMIT + 1) + b"{}", None, "over the limit"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", None, "git lfs pull"),
    "a zip archive": (struct.pack("<Q", 4) + b"PK\3\4", None, "not a safetensors file"),
    "not JSON": (safetensors_bytes(b'{"a": ', b""), None, "not valid JSON"),
    "JSON with NaN": (safetensors_bytes(b'{"a": NaN}', b""), None, "NaN is not a number"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}', b""), None, "not UTF-8"),
    "too deep": (safetensors_bytes(b'{"a":' + b"[" * 200_000, b""), None, "not valid JSON"),
    "key twice": (safetensors_bytes(b'{"a": 1, "b": 2, "a": 3}', b""), None, "'a' stands twice"),
    "not an object": (safetensors_bytes({"a": 3}, b""), "a", "dtype, shape and data_offsets"),
    "field missing": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": []}}, b""),
        "a",
        "dtype, shape and data_offsets",
    ),
    "field too many": (safetensors_bytes({"a": {**TWO["a"], "x": 1}}, b"\0" * 8), "a", "dtype, shape and data_offsets"),
    "dtype unknown": (safetensors_bytes({"a": entry(0, 8, shape=[8], dtype="F8_E4M3")}, b"\0" * 8), "a", "'F8_E4M3'"),
    "dtype no text": (safetensors_bytes({"a": entry(0, 8, shape=[2], dtype=["F32"])}, b"\0" * 8), "a", "known are F64"),
    "shape negative": (safetensors_bytes({"a": entry(0, 8, shape=[-2])}, b"\0" * 8), "a", "[-2]"),
    "shape of truth values": (safetensors_bytes({"a": entry(0, 4, shape=[True])}, b"\0" * 4), "a", "[True]"),
    "shape of fractions": (safetensors_bytes({"a": entry(0, 8, shape=[2.0])}, b"\0" * 8), "a", "[2.0]"),
    "shape enormous": (safetensors_bytes({"a": entry(0, 8, shape=[10**4000] * 9)}, b"\0" * 8), "a", "no list of sizes"),
    "size lies": (safetensors_bytes({"a": entry(0, 8, shape=[3])}, b"\0" * 8), "a", "cannot fill the 8 bytes"),
    "offsets swapped": (safetensors_bytes({"a": entry(8, 0, shape=[2])}, b"\0" * 8), "a", "no pair of begin and end"),
    "offsets three": (
        safetensors_bytes({"a": {**TWO["a"], "data_offsets": [0, 8, 9]}}, b"\0" * 8),
        "a",
        "no pair of begin and end",
    ),
    "overlap": (
        safetensors_bytes({**TWO, "b.c": entry(4, 12, shape=[2])}, b"\0" * 12),
        "b.c",
        "overlaps the tensor 'a'",
    ),
    "same place": (safetensors_bytes({"a": TWO["a"], "b": TWO["a"]}, b"\0" * 8), "b", "overlaps the tensor 'a'"),
    "gap": (safetensors_bytes({**TWO, "b.c": entry(12, 20, shape=[2])}, b"\0" * 20), "b.c", "gap of 4 bytes"),
    "gap in front": (safetensors_bytes({"a": entry(4, 12, shape=[2])}, b"\0" * 12), "a", "gap of 4 bytes"),
    "metadata no texts": (safetensors_bytes({"__metadata__": {"x": 1}}, b""), None, "__metadata__"),
    "metadata no table": (safetensors_bytes({"__metadata__": []}, b""), None, "__metadata__"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_gets_one_line_that_names_key_and_file(name, tmp_path):
    raw, key, words = WRONG[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path)
    text = str(caught.value)
    assert caught.value.file == path and caught.value.key == key
    assert text.startswith(f"{path}: ") and words in text and "\n" not in text and len(text) < 400
    assert key is None or repr(key) in text


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(GOOD)
    tensors = read_safetensors(path)
    assert list(tensors) == ["a", "b.c"]
    np.testing.assert_array_equal(tensors["b.c"], np.array([[2, 3]], np.float32))


def test_a_header_may_be_padded_unordered_and_carry_metadata():
    header = {"__metadata__": {"format": "pt"}, "b.c": TWO["b.c"], "a": TWO["a"], "none": entry(8, 8, shape=[0, 3])}
    entries, metadata = parse_header(json.dumps(header).encode() + b"   ", 16, "w")
    assert metadata == {"format": "pt"} and set(entries) == {"a", "b.c", "none"}
    assert entries["none"] == Entry("F32", (0, 3), 8, 8)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere.safetensors: cannot be read"):
        read_header(tmp_path / "nowhere.safetensors")


@given(st.dictionaries(st.text(min_size=1), st.sampled_from([("F32", (2,)), ("I64", ()), ("U8", (0, 5))]), max_size=5))
def test_what_is_formatted_is_parsed_again(kinds):
    size = {"F32": 8, "I64": 8, "U8": 0}
    entries, position = {}, 0
    for key, (dtype, shape) in kinds.items():
        entries[key] = Entry(dtype, shape, position, position + size[dtype])
        position += size[dtype]
    entries.pop("__metadata__", None)
    if len(entries) == len(kinds):
        assert parse_header(json.dumps(format_header(entries, {})).encode(), position, "w") == (entries, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**30) | st.floats() | st.text() | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BOOL", "F4"]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 20), min_size=1, max_size=3) | json_values,
    }
)


@given(st.dictionaries(st.text(), fields | json_values, max_size=4), st.integers(0, 40))
def test_any_json_is_read_or_refused_with_our_error(header, size):
    try:
        entries, _ = parse_header(json.dumps(header).encode(), size, "w")
    except RefdiffError:
        return
    assert sum(e.end - e.begin for e in entries.values()) == size


@given(st.data())
def test_any_damage_is_read_or_refused_with_our_error(tmp_path_factory, data):
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    path.write_bytes(bytes(raw[:cut]) if data.draw(st.booleans()) else bytes(raw))
    try:
        tensors = read_safetensors(path)
    except RefdiffError as error:
        assert str(path) in str(error)
    else:
        assert sum(t.nbytes for t in tensors.values()) <= 2 * len(raw)  # bfloat16 doubles


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_with_our_error(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "w.safetensors"
    path.write_bytes(raw)
    try:
        assert read_safetensors(path) == {}
    except RefdiffError as error:
        assert str(path) in str(error)
