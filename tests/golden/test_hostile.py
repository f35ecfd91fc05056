"""Files that are damaged, that lie, or that want to do harm are refused in one line, before room is made for what they claim."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.errors import BadRequest
from refdiff.golden import Trace, compare, read_trace, write_trace
from refdiff.golden.compare import FAIL, PASS

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(x=X, **save) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x, **save)
    return stream.getvalue()


def headed(header: str, data: bytes = b"\0" * 24, version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy with any words in its header."""
    words = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(words))
    return b"\x93NUMPY" + bytes(version) + length + words + data


def shaped(shape: str, descr: str = "'<f4'") -> bytes:
    return headed(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


class Harm:
    """A pickle that would make a file."""

    def __reduce__(self):
        return (os.system, ("touch harmed",))


BAD_NPY = {
    "empty": b"",
    "truncated": npy()[:-5],
    "too long": npy() + b"more",
    "no npy": b"hello, world" * 9,
    "a pickle": pickle.dumps(Harm()),
    "objects": npy(np.array([Harm()], dtype=object), allow_pickle=True),
    "100 GB": shaped("(25000000000,)"),
    "more than there is in the world": shaped("(10000000000, 10000000000, 10000000000)"),
    "an empty axis and an endless one": shaped("(0, 1000000000000000000000000000000)"),
    "negative": shaped("(-2, -3)"),
    "no shape": shaped("'x'"),
    "half a shape": shaped("(1.5, 4)"),
    "texts": shaped("(6,)", "'<U1'"),
    "complex": shaped("(3,)", "'<c8'"),
    "wider than 64 bits": npy(np.zeros(3, dtype=np.longdouble)),
    "a table": shaped("(3,)", "[('a', '<f4'), ('b', '<f4')]"),
    "code": headed("__import__('os').system('touch harmed')"),
    "an open bracket": headed("{'descr': '<f4', 'shape': ((((("),
    "too deep": headed("(" * 9000),
    "a version that is not there": headed("{}", version=(7, 7)),
    "a long header": headed(" " * 60000),
}


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Harm, if any is done, is done here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "harmed").exists()


def refused(path) -> str:
    with pytest.raises(BadRequest) as error:
        read_trace(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 500, text
    return text


@pytest.mark.parametrize("name", BAD_NPY)
def test_a_bad_npy_is_refused_in_a_folder_and_in_an_archive(name, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x.npy").write_bytes(BAD_NPY[name])
    assert "x.npy" in refused(tmp_path / "theirs")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        file.writestr("x.npy", BAD_NPY[name])
    assert "x.npy" in refused(tmp_path / "t.npz")


@pytest.mark.parametrize(
    "name", ["../x.npy", "/x.npy", "a/../../x.npy", "a//x.npy", "C:\\x.npy", "x\n.npy", "\x1b[2J.npy", "", "ä.npy"]
)
def test_a_name_that_leads_out_is_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as file:
        file.writestr(zipfile.ZipInfo(name), npy())
    assert "\x1b" not in refused(tmp_path / "t.npz")


def test_a_folder_that_leads_out_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.npy").write_bytes(npy())
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "x.npy").symlink_to(tmp_path / "out" / "x.npy")
    assert "leads out" in refused(tmp_path / "theirs")
    (tmp_path / "theirs" / "x.npy").unlink()
    (tmp_path / "theirs" / "y").symlink_to(tmp_path / "out")
    refused(tmp_path / "theirs")
    (tmp_path / "theirs" / "y").unlink()


def test_what_would_never_end_is_refused(tmp_path):
    """In a process of its own, which a reader that waits for ever cannot keep."""
    os.mkfifo(tmp_path / "x.npy")
    code = "import sys; from refdiff.golden import read_trace; read_trace(sys.argv[1])"
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-c", code, str(tmp_path)]
    assert "is no file" in subprocess.run(run, env=where, capture_output=True, text=True, timeout=120).stderr


def zipped(path, name="x.npy", data=None, packed=zipfile.ZIP_DEFLATED, times=1):
    with zipfile.ZipFile(path, "w", packed) as file:
        for _ in range(times):
            file.writestr(name, npy() if data is None else data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_tricks_with_archives_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    zipped(path, times=2)
    assert "twice" in refused(path)
    zipped(path, packed=zipfile.ZIP_LZMA)
    assert "packed in a way" in refused(path)
    zipped(path)
    raw = path.read_bytes()
    for cut in range(0, len(raw), 7):
        path.write_bytes(raw[:cut])
        refused(path)
    place = raw.index(npy()[:4]) if npy()[:4] in raw else 30 + len("x.npy")
    path.write_bytes(raw[: place + 4] + b"\xff\xff\xff" + raw[place + 7 :])  # the packed data are damaged
    refused(path)


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path):
    """4 GiB of zeros in 4 MB, written by hand so that the test need not pack them."""
    size, path = 4 << 30, tmp_path / "bomb.npz"
    zipped(path, data=npy(np.zeros(4096, dtype=np.float32)))
    raw = bytearray(path.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[central + 24 : central + 28] = struct.pack("<I", size - 1)
    path.write_bytes(raw)
    assert "unpacks to" in refused(path)


def safetensors(header: object, data: bytes = b"") -> bytes:
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(words)) + words + data


def entry(shape=(2, 3), dtype="F32", begin=0, end=24) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def sound(tmp_path, **manifest) -> bytes:
    write_trace(tmp_path / "sound.safetensors", Trace({"a": X}, manifest))
    return (tmp_path / "sound.safetensors").read_bytes()


BAD_SAFETENSORS = {
    "empty": b"",
    "a long header": struct.pack("<Q", 1 << 60),
    "100 GB": safetensors({"a": entry((25_000_000_000,), end=100_000_000_000)}, X.tobytes()),
    "another type": safetensors({"a": entry(dtype="F8")}, X.tobytes()),
    "too wide": safetensors({"a": entry(dtype="F64")}, X.tobytes()),
    "leads out": safetensors({"../a": entry()}, X.tobytes()),
    "absolute": safetensors({"/a": entry()}, X.tobytes()),
    "two in one place": safetensors({"a": entry(), "b": entry()}, X.tobytes()),
    "twice": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), X.tobytes()),
    "deep": safetensors(b'{"a":' + b"[" * 100_000, b""),
    "a pickle": pickle.dumps(Harm()),
}


@pytest.mark.parametrize("name", BAD_SAFETENSORS)
def test_a_bad_safetensors_is_refused(name, tmp_path):
    (tmp_path / "t.safetensors").write_bytes(BAD_SAFETENSORS[name])
    refused(tmp_path / "t.safetensors")


def test_a_truncated_safetensors_is_refused(tmp_path):
    raw = sound(tmp_path)
    for cut in range(0, len(raw), 13):
        (tmp_path / "t.safetensors").write_bytes(raw[:cut])
        refused(tmp_path / "t.safetensors")


def manifest(**told) -> str:
    """Of a trace with one tensor, with anything else in it."""
    return json.dumps({"format_version": "1.0.0", "order": ["a"], "tensors": {"a": {}}, **told})


BAD_MANIFESTS = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "not a number": manifest(generator=float("nan")),
    "another version": manifest(format_version="2.0.0"),
    "a version that is no text": manifest(format_version=1),
    "other tensors": manifest(order=["b"], tensors={"b": {}}),
    "an order of numbers": manifest(order=[1]),
    "twice": manifest(order=["a", "a"]),
    "facts that are none": manifest(tensors={"a": 3}),
    "a bound that is none": manifest(tensors={"a": {"bounds": {"float32": {"added": "big"}}}}),
    "a path": manifest(inputs={"prompt": "", "negative_prompt": "", "image": "../../picture.png"}),
    "no prompt": manifest(inputs={}),
    "extras of numbers": manifest(inputs={"prompt": "", "negative_prompt": "", "extras": 3}),
    "a model of numbers": manifest(model={"name": 3}),
    "unsupported of numbers": manifest(unsupported=[3]),
    "facts of a run that are a list": manifest(about=[]),
    "notes of numbers": manifest(about={"notes": [3]}),
    "deep": '{"a":' + "[" * 50_000,
    "half a letter": '{"\ud800": 1}',
}


def test_a_sound_manifest_is_read(tmp_path):
    header = {"__metadata__": {"refdiff": manifest()}, "a": entry()}
    (tmp_path / "t.safetensors").write_bytes(safetensors(header, X.tobytes()))
    assert list(read_trace(tmp_path / "t.safetensors").tensors) == ["a"]


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused(name, tmp_path):
    header = {"__metadata__": {"refdiff": BAD_MANIFESTS[name]}, "a": entry()}
    (tmp_path / "t.safetensors").write_bytes(safetensors(header, X.tobytes()))
    refused(tmp_path / "t.safetensors")


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_one_changed_byte_is_refused_or_harmless(tmp_path_factory, place, value):
    """Nothing but a BadRequest comes of it, and what is still read is a trace."""
    folder = tmp_path_factory.getbasetemp()
    for name, raw in (("a.safetensors", sound(folder)), ("a.npz", zip_of_x())):
        changed = bytearray(raw)
        changed[place % len(raw)] = value
        (folder / name).write_bytes(changed)
        try:
            trace = read_trace(folder / name)
        except BadRequest as error:
            assert "\n" not in str(error)
        else:
            compare(trace, Trace({"a": X, "x": X}))


def zip_of_x() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy())
    return stream.getvalue()


def test_numbers_in_the_other_byte_order_are_the_same_numbers(tmp_path):
    np.savez(tmp_path / "t.npz", x=X.astype(">f4"))
    trace = read_trace(tmp_path / "t.npz")
    report = compare(trace, Trace({"x": X}))
    assert trace.tensors["x"].dtype == np.float32 and report.rows[0].outcome == PASS


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails(value):
    wrong = X.copy()
    wrong[0, 1] = value
    row = compare(Trace({"x": wrong}), Trace({"x": X})).rows[0]
    assert row.outcome == FAIL and "NaN or infinity" in row.note
    assert compare(Trace({"x": X}), Trace({"x": wrong})).rows[0].outcome == FAIL
