"""Comparing: layouts that are recognised, outcomes, precisions, and measures that say what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.golden import Trace, compare
from refdiff.golden.compare import FAIL, MISSING, PASS, UNSUPPORTED, kind_of, measured, recognised, relative
from refdiff.golden.tolerance import to_bfloat16, to_float16

F981 = np.array(981.0, dtype=np.float32)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def row_of(got: np.ndarray, want: np.ndarray, name: str = "x", **known):
    return compare(Trace({name: got}), Trace({name: want}), **known).rows[0]


SHAPES = st.lists(st.integers(2, 5), min_size=4, max_size=4).map(tuple)


@given(shape=SHAPES, axes=st.permutations(range(4)), seed=st.integers(0, 99))
def test_axes_in_any_order_are_put_right(shape, axes, seed):
    want = numbers(*shape, seed=seed)
    got = want.transpose(axes)
    row = row_of(got, want)
    assert row.outcome == PASS and row.measure.relative == 0.0
    assert (row.note != "") == (not np.array_equal(got, want) if got.shape == want.shape else True)


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x: x.transpose(0, 2, 3, 1), "layout: NCHW for NHWC"),
        (lambda x: x.transpose(0, 3, 1, 2), "layout: NHWC"),
        (lambda x: x.reshape(2, 3, 20).transpose(0, 2, 1), "layout: tokens for pixels"),
        (lambda x: x[:, None], "layout: axes of length 1 left out or put in"),
    ],
)
def test_the_layout_is_named(turn, words):
    want = numbers(2, 3, 4, 5)
    row = row_of(turn(want), want)
    assert (row.outcome, row.note, row.measure.relative) == (PASS, words, 0.0)


def test_pixels_for_tokens_and_transposed_weights_are_named():
    want = numbers(2, 20, 3)
    assert row_of(want.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2), want).note == "layout: pixels for tokens"
    square = numbers(6, 6)
    assert row_of(square.T, square).note == "layout: transposed"
    assert row_of(numbers(4, 6).T, numbers(4, 6)).note == "layout: transposed"


def test_a_turned_tensor_that_is_wrong_too_is_judged_in_its_layout():
    want = numbers(2, 3, 4, 5)
    row = row_of((want * np.float32(1.01)).transpose(0, 2, 3, 1), want)
    assert row.outcome == FAIL and row.note.startswith("layout") and 0.009 < row.measure.relative < 0.011


@given(seed=st.integers(0, 999))
def test_another_tensor_is_not_taken_for_a_layout(seed):
    got, want = numbers(4, 4, 4, seed=seed), numbers(4, 4, 4, seed=seed + 1)
    assert recognised(got, want) == (got, "") or recognised(got, want)[1] == ""
    row = row_of(got, want)
    assert row.outcome == FAIL and row.measure.relative > 0.5


def test_another_shape_fails_and_says_both():
    row = row_of(numbers(2, 3), numbers(2, 4))
    assert row.outcome == FAIL and row.note == "shape [2, 3], golden [2, 4]" and row.measure is None


def test_what_is_not_there_is_missing_or_unsupported_and_never_a_pass():
    x = numbers(3)
    golden = Trace({"a": x, "b": x, "c": x})
    report = compare(Trace({"a": x, "d": x}, {"unsupported": ["c"]}), golden)
    assert [row.outcome for row in report.rows] == [PASS, MISSING, UNSUPPORTED]
    assert report.extra == ("d",) and report.passed
    nothing = compare(Trace({"d": x}, {"unsupported": ["a", "b", "c"]}), golden)
    assert nothing.first_wrong is None and not nothing.passed
    there = compare(Trace({"a": x + 1}, {"unsupported": ["a"]}), golden)
    assert there.rows[0].outcome == FAIL  # what is given is compared, whatever the manifest says


def test_a_tensor_whose_added_error_is_known_is_judged_by_it():
    want = numbers(50)
    got = want * np.float32(1.5)
    row = row_of(got, want, added={"x": 1e-7}, inherited={"x": 0.5})
    assert (row.outcome, row.added, row.inherited) == (PASS, 1e-7, 0.5) and 0.4 < row.measure.relative < 0.6
    assert row_of(got, want).outcome == FAIL
    assert row_of(want, want, added={"x": 1e-3}).outcome == FAIL


def test_the_bound_is_the_manifests_own():
    want = numbers(50)
    got = (want * (1 + 1e-4)).astype(np.float32)
    told = {"tensors": {"x": {"bounds": {"float32": {"added": 2e-4, "whole": 1e-6}}}}}
    golden = Trace({"x": want}, told)
    assert compare(Trace({"x": got}), golden).rows[0].outcome == FAIL
    assert compare(Trace({"x": got}), golden, added={"x": 1.9e-4}).rows[0].outcome == PASS
    assert compare(Trace({"x": got}), golden, added={"x": 2.1e-4}).rows[0].outcome == FAIL


def test_the_precision_is_that_of_the_numbers():
    x = numbers(64)
    half = x.astype(np.float16)
    brain = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    kinds = [kind_of(y) for y in (x, x.astype(np.float64), half, half.astype(np.float32), brain, np.arange(3), x > 0)]
    assert kinds == ["float32", "float64", "float16", "float16", "bfloat16", "exact", "exact"]
    assert kind_of(np.zeros(3, dtype=np.float32)) == "float32"


@pytest.mark.parametrize("near", [to_float16, to_bfloat16])
def test_a_few_numbers_are_of_the_precision_of_the_run(near):
    right = {"pieces/x": numbers(5), "vae/image": numbers(500), "schedule/sigmas": numbers(5, seed=1), "steps/000/time": F981}
    halves = {name: near(x) for name, x in right.items()}
    added = {name: relative(halves[name], right[name]) for name in right}

    def outcomes(**theirs):
        report = compare(Trace({**halves, **theirs}), Trace(right), added=added)
        return {row.name: row.outcome for row in report.rows}

    time = PASS if halves["steps/000/time"] == F981 else FAIL  # bfloat16 has no 981
    assert outcomes() == {"pieces/x": PASS, "vae/image": PASS, "schedule/sigmas": FAIL, "steps/000/time": time}
    assert outcomes(**{"vae/image": right["vae/image"]})["pieces/x"] == FAIL  # such a run has no reason to round a few


def test_whole_numbers_are_exact_but_for_levels_that_rounding_tips():
    ids = np.arange(400)
    assert row_of(ids, ids).outcome == PASS and row_of(ids + (ids == 7), ids).outcome == FAIL
    levels = np.full((1, 20, 20, 3), 100, dtype=np.uint8)
    tipped = levels.copy()
    tipped[0, 0, :4] += 1
    assert row_of(tipped, levels, "pixels/image").outcome == PASS
    tipped[0, 0, 0] += 1
    assert row_of(tipped, levels, "pixels/image").outcome == FAIL
    assert row_of(levels + np.uint8(1), levels, "pixels/image").outcome == FAIL


@given(seed=st.integers(0, 999), steps=st.integers(0, 40))
def test_ulps_are_counted(seed, steps):
    want = numbers(8, seed=seed)
    got = want.copy()
    for _ in range(steps):
        got[3] = np.nextafter(got[3], np.float32(np.inf))
    assert measured(got, want).ulp == steps


def test_ulps_are_counted_across_zero():
    tiny = np.float32(1e-45)
    assert measured(np.array([tiny]), np.array([-tiny])).ulp == 2.0
    assert measured(np.array([0.0], dtype=np.float32), np.array([-0.0], dtype=np.float32)).ulp == 0.0


@given(seed=st.integers(0, 999), place=st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)))
def test_the_largest_difference_is_found_where_it_is(seed, place):
    want = numbers(2, 3, 4, seed=seed).astype(np.float64)
    got = want.copy()
    got[place] += 3.0
    m = measured(got, want)
    assert m.at == place and math.isclose(m.largest, 3.0) and math.isclose(m.relative, 3.0 / np.linalg.norm(want))
    cosine = (got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want)
    assert math.isclose(m.cosine, cosine, rel_tol=1e-12)


def test_errors_beside_nothing():
    zero, x = np.zeros(3), np.ones(3)
    assert (relative(zero, zero), relative(x, zero), relative(zero, x)) == (0.0, math.inf, 1.0)
    assert relative(np.full(3, np.nan), x) == math.inf
    assert measured(np.zeros((0, 2)), np.zeros((0, 2))).relative == 0.0


def test_one_wrong_id_fails_whatever_its_type():
    ids = np.arange(154).reshape(2, 77) + 49000
    wrong = ids.copy()
    wrong[1, 5] += 1
    golden = Trace({"tokens/ids": ids})
    for dtype in (np.int64, np.int32, np.float32, np.float64):
        assert compare(Trace({"tokens/ids": ids.astype(dtype)}), golden).passed
        assert not compare(Trace({"tokens/ids": wrong.astype(dtype)}), golden).passed
