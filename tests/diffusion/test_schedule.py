"""The tables are torch's to the last bit, and the true ones to the precision of float32."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion import schedule, spacing
from refdiff.errors import BadRequest

ROWS = json.loads((Path(__file__).parent / "tables.json").read_text())["rows"]
each_row = pytest.mark.parametrize("row", ROWS, ids=[row["beta_schedule"] for row in ROWS])


def table(row: dict, precision: str, count: int = 1000) -> np.ndarray:
    return schedule.alphas_cumprod(
        schedule=row["beta_schedule"],
        beta_start=row["beta_start"],
        beta_end=row["beta_end"],
        count=count,
        table=precision,
    )


def witness(row: dict, count: int) -> list[float]:
    """The product of (1 - beta), one time after another, in float64."""
    start, end = row["beta_start"], row["beta_end"]
    product, products = 1.0, []
    for t in range(count):
        share = t / (count - 1) if count > 1 else 0.0
        if row["beta_schedule"] == "linear":
            beta = start + share * (end - start)
        else:
            beta = (math.sqrt(start) + share * (math.sqrt(end) - math.sqrt(start))) ** 2
        product *= 1.0 - beta
        products.append(product)
    return products


@each_row
def test_float32_table_is_torchs_bit_for_bit(row):
    got = table(row, "float32-torch")
    assert got.dtype == np.float32 and got.shape == (1000,)
    np.testing.assert_array_equal(got[row["at"]], np.array(row["alphas_cumprod"], dtype=np.float32))
    assert hashlib.sha256(got.astype("<f4").tobytes()).hexdigest() == row["sha256"]


@each_row
def test_float64_table_is_the_product(row):
    got = table(row, "float64")
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, witness(row, 1000), rtol=1e-12)
    assert float(np.max(np.abs(table(row, "float32-torch") / got - 1.0))) < 3e-5


@given(st.sampled_from(ROWS), st.integers(1, 400))
def test_any_length(row, count):
    got = table(row, "float64", count)
    np.testing.assert_allclose(got, witness(row, count), rtol=1e-12)
    rounded = table(row, "float32-torch", count)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, got, rtol=3e-5)
    assert np.all(np.diff(rounded) < 0) and 0 < rounded[-1] and rounded[0] < 1


def test_scaled_linear_is_linear_in_the_root():
    betas = schedule.scaled_linear_betas(0.00085, 0.012, 11, np.linspace)
    np.testing.assert_allclose(np.diff(np.sqrt(betas), 2), 0.0, atol=1e-16)
    assert betas[5] < schedule.linear_betas(0.00085, 0.012, 11, np.linspace)[5]


@given(st.floats(1e-6, 1e6))
def test_sigma_is_noise_over_signal(sigma):
    signal = np.array([1.0 / (1.0 + sigma * sigma)])
    np.testing.assert_allclose(schedule.sigmas_of(signal), [sigma], rtol=1e-3 if sigma < 1e-3 else 1e-6)


def test_spacing_by_hand():
    assert spacing.leading(4, count=1000, offset=1).tolist() == [751, 501, 251, 1]
    assert spacing.leading(3, count=10, offset=0).tolist() == [6, 3, 0]
    assert spacing.trailing(4, count=1000).tolist() == [999, 749, 499, 249]
    assert spacing.trailing(7, count=1000).tolist() == [999, 856, 713, 570, 428, 285, 142]
    assert spacing.linspaced(4, count=10).tolist() == [9.0, 6.0, 3.0, 0.0]
    assert spacing.linspaced(3, count=10).tolist() == [9.0, 4.5, 0.0]


@given(st.integers(1, 1000))
def test_every_number_of_steps_has_that_many_times(steps):
    """Upstream's trailing has one too many for some numbers, 61 the first of them."""
    spacings = {
        "leading": spacing.leading(steps, count=1000, offset=0),
        "trailing": spacing.trailing(steps, count=1000),
        "linspace": spacing.linspaced(steps, count=1000),
    }
    for name, times in spacings.items():
        assert times.shape == (steps,), name
        assert np.all(np.diff(times) < 0) and times[0] <= 999 and times[-1] >= 0, name
    assert spacings["trailing"][0] == 999
    assert spacings["leading"][-1] == 0


def test_trailing_does_not_go_below_zero():
    for steps in range(1, 1001):
        assert spacing.trailing(steps, count=1000)[-1] >= 0


def test_unknown_names_are_refused():
    row = ROWS[0]
    with pytest.raises(BadRequest, match='"cosine".*linear, scaled_linear'):
        table({**row, "beta_schedule": "cosine"}, "float64")
    with pytest.raises(BadRequest, match='"float16".*float32-torch, float64'):
        table(row, "float16")


def test_sigmoid_is_a_logistic_curve():
    found = schedule.betas(schedule="sigmoid", beta_start=0.1, beta_end=0.3, count=5, table="float64")
    np.testing.assert_allclose(found, [0.1 + 0.2 / (1 + math.exp(-x)) for x in (-6, -3, 0, 3, 6)], rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "signal"),
    [
        ("squaredcos_cap_v2", lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2),
        ("exp", lambda u: math.exp(-12.0 * u)),
        # The root of the logistic of a Laplace quantile: upstream takes the root for what is left of the signal itself.
        ("laplace", lambda u: (1 / (1 + math.exp(-(-0.5 if u <= 0.5 else 0.5) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)))) ** 0.5),
    ],
)
def test_schedules_that_are_given_by_what_is_left(name, signal):
    found = schedule.alphas_cumprod(schedule=name, beta_start=0.1, beta_end=0.3, count=50, table="float64")
    np.testing.assert_allclose(found[:40], [signal((t + 1) / 50) / signal(0.0) for t in range(40)], rtol=1e-12)
