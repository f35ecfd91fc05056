"""Tensors to files and back: every dtype, bfloat16 to the last bit, views of the mapped file, whole files or none."""

import os

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refdiff.checkpoints import read_safetensors, write_safetensors
from refdiff.checkpoints.files import replacing, write_json
from refdiff.checkpoints.header import read_header
from refdiff.checkpoints.tensor_file import narrow_bfloat16, widen_bfloat16, write_stream
from refdiff.errors import BadRequest
from tests.checkpoints.folders import safetensors_bytes

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_]


def examples():
    rng = np.random.default_rng(1)
    return {
        "half": rng.standard_normal((3, 5)).astype(np.float16),
        "byte": rng.integers(0, 255, 3).astype(np.uint8),
        "double": rng.standard_normal((2, 3, 1)),
        "scalar": np.array(3.5, np.float32),
        "none": np.zeros((0, 4), np.float32),
        "columns": rng.standard_normal((4, 6)).astype(np.float32).T,
    }


@given(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_a_round_trip_keeps_every_bit(tmp_path_factory, x):
    path = tmp_path_factory.mktemp("trip") / "w.safetensors"
    write_safetensors(path, {"x": x, "y": x[..., None]}, dtype=None)
    back = read_safetensors(path)
    assert back["x"].dtype == x.dtype and back["x"].shape == x.shape and back["y"].shape == (*x.shape, 1)
    assert back["x"].tobytes() == x.tobytes() == back["y"].tobytes()


def test_the_safetensors_library_reads_what_is_written_and_writes_what_is_read(tmp_path):
    write_safetensors(tmp_path / "ours", examples(), dtype=None)
    safetensors.numpy.save_file({k: v.copy(order="C") for k, v in examples().items()}, tmp_path / "theirs")
    theirs, ours = safetensors.numpy.load_file(tmp_path / "ours"), read_safetensors(tmp_path / "theirs")
    for key, value in examples().items():
        for back in (theirs[key], ours[key]):
            assert back.dtype == value.dtype and back.shape == value.shape
            np.testing.assert_array_equal(back, value)
    assert read_header(tmp_path / "ours").metadata == {"format": "pt"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_file_of_one_dtype_holds_rounded_values(tmp_path, dtype):
    x = np.random.default_rng(0).standard_normal((7, 3))
    write_safetensors(tmp_path / "w", {"x": x}, dtype=dtype)
    back = read_safetensors(tmp_path / "w")["x"]
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, x.astype(dtype))


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(BadRequest, match='unknown dtype "float8": choose one of float64, float32'):
        write_safetensors(tmp_path / "w", examples(), dtype="float8")
    with pytest.raises(BadRequest, match="x: the dtype complex128 cannot be written"):
        write_safetensors(tmp_path / "w", {"x": np.zeros(2, complex)}, dtype=None)
    assert not (tmp_path / "w").exists()


def test_every_bfloat16_is_widened_to_the_float32_with_its_bits():
    bits = np.arange(2**16, dtype=np.uint16)
    wide = widen_bfloat16(bits)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32), bits.astype(np.uint32) * 65536)
    assert wide[0x3F80] == 1.0 and wide[0xC049] == -3.140625 and np.isinf(wide[0x7F80]) and np.isnan(wide[0x7FC0])


def test_every_bfloat16_comes_back_from_its_float32():
    bits = np.arange(2**16, dtype=np.uint16)
    back = narrow_bfloat16(widen_bfloat16(bits))
    is_nan = np.isnan(widen_bfloat16(bits))
    np.testing.assert_array_equal(back[~is_nan], bits[~is_nan])
    np.testing.assert_array_equal(back[is_nan], bits[is_nan] | 0x40)  # a quiet NaN of the same sign


@given(hnp.arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bfloat16_is_the_nearest_one_ties_to_even(x):
    bits = narrow_bfloat16(x)
    upper = (x.view(np.uint32) >> 16).astype(np.uint16)  # towards zero
    below, above = (widen_bfloat16(b).astype(np.float64) for b in (upper, upper + np.uint16(1)))
    above = np.where(np.isinf(above), np.copysign(2.0**128, x.astype(np.float64)), above)
    nearer_above = np.abs(above - x) < np.abs(x - below)
    tie = np.abs(above - x) == np.abs(x - below)
    wanted = upper + (nearer_above | (tie & (upper % 2 == 1)))
    np.testing.assert_array_equal(bits, wanted)


def test_bfloat16_ties_go_to_the_even_one():
    lower = np.array([0x3F80, 0x3F81, 0xBF80, 0xBF81, 0x0000, 0x7F7F], np.uint32)
    middle = (lower << 16 | 0x8000).view(np.float32)
    assert narrow_bfloat16(middle).tolist() == [0x3F80, 0x3F82, 0xBF80, 0xBF82, 0x0000, 0x7F80]


def test_bfloat16_files_are_read_as_float32(tmp_path):
    x = np.array([[1.0, -2.5], [3.140625, 1e30]], np.float32)
    write_safetensors(tmp_path / "w", {"x": x, "s": np.array(0.5)}, dtype="bfloat16")
    assert read_header(tmp_path / "w").entries["x"].dtype == "BF16"
    back = read_safetensors(tmp_path / "w")
    assert back["x"].dtype == np.float32 and back["s"].shape == () and back["s"] == 0.5
    np.testing.assert_array_equal(back["x"], widen_bfloat16(narrow_bfloat16(x)))
    np.testing.assert_allclose(back["x"], x, rtol=2**-8)


def test_arrays_are_read_only_aligned_views_of_the_mapped_file(tmp_path):
    write_safetensors(tmp_path / "w", examples(), dtype=None)
    for x in read_safetensors(tmp_path / "w").values():
        assert type(x) is np.ndarray and not x.flags.writeable and x.flags.aligned and not x.flags.owndata
        owner = x
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        assert isinstance(owner, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        read_safetensors(tmp_path / "w")["half"][0] = 1


@pytest.mark.parametrize("spaces", range(8))
def test_arrays_are_aligned_even_where_the_file_is_not(tmp_path, spaces):
    header = b'{"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}' + b" " * spaces
    x = np.array([1, -2, 3.5], "<f4")
    (tmp_path / "w").write_bytes(safetensors_bytes(header, x.tobytes()))
    back = read_safetensors(tmp_path / "w")["x"]
    np.testing.assert_array_equal(back, x)
    assert back.flags.aligned


def test_a_mapped_file_outlives_its_replacement(tmp_path):
    write_safetensors(tmp_path / "w", {"x": np.ones(5000)}, dtype=None)
    old = read_safetensors(tmp_path / "w")["x"]
    write_safetensors(tmp_path / "w", {"x": np.zeros(1)}, dtype=None)
    assert old.sum() == 5000 and read_safetensors(tmp_path / "w")["x"].sum() == 0


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "w"
    write_safetensors(path, {"x": np.ones(3)}, dtype=None)

    def parts(name):
        yield np.ones(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stream(path, {"x": ("F64", (3,))}, parts)
    assert os.listdir(tmp_path) == ["w"] and read_safetensors(path)["x"].sum() == 3


def test_parts_that_do_not_fill_the_tensor_are_refused(tmp_path):
    with pytest.raises(ValueError, match="x: 16 bytes came for a place of 24"):
        write_stream(tmp_path / "w", {"x": ("F64", (3,))}, lambda name: [np.ones(2)])
    assert os.listdir(tmp_path) == []


def test_a_file_larger_than_the_disk_is_refused_before_it_is_begun(tmp_path):
    def never(name):
        raise AssertionError("began to write")

    with pytest.raises(BadRequest, match=r"w: needs \d+ MB, but the disk has \d+ MB free: choose another folder"):
        write_stream(tmp_path / "w", {"x": ("F64", (2**50,))}, never)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(BadRequest, match="w: cannot be written: No space left on device"),
        replacing(tmp_path / "w") as file,
    ):
        file.write(b"half")
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRequest, match="cannot be written: Not a directory"):
        write_json(tmp_path / "file" / "below" / "config.json", {})
    with pytest.raises(BadRequest, match=r"config.json: cannot be written: (File exists|Not a directory)"):
        write_json(tmp_path / "file" / "config.json", {})
