"""AdamW, the rate, clipping and the moving average against loops written from the papers, one Python float at a time."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from refdiff.core import primitive
from refdiff.core.params import tree
from refdiff.core.tape import value_and_grad
from refdiff.ops import linear, mean, square
from refdiff.training.loop import averaged, loss_and_gradient
from refdiff.training.optimizer import (
    OptimizerSettings,
    adamw_step,
    clip_scale,
    ema_share,
    ema_step,
    flatten_vector,
    learning_rate,
    unflatten_vector,
)
from tests.training.examples import SETTINGS, UNET_TASK, VAE_TASK, go_on, last

MODES = ("spec", "fast")
SIZE = 37


def adamw_witness(w: float, gradients: list[float], rates: list[float], s: OptimizerSettings) -> tuple[float, float, float]:
    """One weight through all its updates: Loshchilov and Hutter, algorithm 2, with the decay times the rate."""
    m = v = 0.0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = s.beta1 * m + (1 - s.beta1) * g
        v = s.beta2 * v + (1 - s.beta2) * g**2
        m_hat = m / (1 - math.pow(s.beta1, t))
        v_hat = v / (1 - math.pow(s.beta2, t))
        w = w - rate * m_hat / (math.sqrt(v_hat) + s.eps) - rate * s.weight_decay * w
    return w, m, v


def updated(dtype: type, settings: OptimizerSettings, gradients: np.ndarray, rates: list[float], first: np.ndarray) -> tuple:
    vector, m, v = first.astype(dtype), np.zeros(SIZE, dtype), np.zeros(SIZE, dtype)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        vector, m, v = adamw_step(vector, gradient.astype(dtype), m, v, rate=rate, step=step, settings=settings)
    return vector, m, v


@pytest.mark.parametrize(
    ("mode", "dtype", "tolerance"), [("spec", np.float64, 1e-13), ("spec", np.float32, 2e-6), ("fast", np.float32, 2e-6)]
)
@pytest.mark.parametrize("change", [{}, {"weight_decay": 0.0}, {"beta1": 0.5, "beta2": 0.999}, {"eps": 0.1}], ids=str)
def test_adamw(mode, dtype, tolerance, change):
    settings = replace(SETTINGS, **{"weight_decay": 0.3, **change})
    random = np.random.default_rng(0)
    gradients, first = random.standard_normal((8, SIZE)) * 0.1, random.standard_normal(SIZE)
    rates = [0.01 * (k + 1) for k in range(8)]
    with primitive.mode(mode):
        found = updated(dtype, settings, gradients, rates, first)
    witness = [adamw_witness(first[i], gradients[:, i].tolist(), rates, settings) for i in range(SIZE)]
    for ours, theirs in zip(found, np.array(witness).T, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("mode", MODES)
def test_updates_write_into_no_argument(mode):
    arrays = [np.linspace(0.1, 1.0, SIZE, dtype=np.float32) * k for k in (1, 2, 3, 4)]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    with primitive.mode(mode):
        adamw_step(*arrays, rate=0.1, step=1, settings=SETTINGS)
        ema_step(arrays[0], arrays[1], share=0.5)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_first_update_is_the_rate_whatever_the_gradient():
    """The moments are corrected for their start at zero, so that m / sqrt(v) is the gradient's sign."""
    settings = replace(SETTINGS, weight_decay=0.0)
    gradient = np.array([1e-3, -1e-3, 5.0, -80.0])
    vector, _, _ = adamw_step(np.zeros(4), gradient, np.zeros(4), np.zeros(4), rate=0.02, step=1, settings=settings)
    np.testing.assert_allclose(vector, [-0.02, 0.02, -0.02, 0.02], rtol=2e-5)


def rate_witness(step: int, steps: int, s: OptimizerSettings) -> float:
    """The rise of Goyal et al. 2017, section 2.2; Loshchilov and Hutter 2016, equation 5, with eta_min = 0, one period."""
    if step <= s.warmup_steps:
        return s.learning_rate * (step / s.warmup_steps)
    current, period = step - s.decay_from * steps, steps - s.decay_from * steps
    return 0.5 * s.learning_rate * (1 + math.cos(current / period * math.pi)) if current > 0 else s.learning_rate


@given(st.integers(1, 300), st.integers(0, 40), st.floats(0.0, 0.99))
def test_the_rate(steps, warmup, decay_from):
    settings = replace(SETTINGS, warmup_steps=warmup, decay_from=decay_from, learning_rate=0.7)
    found = [learning_rate(k, steps, settings) for k in range(1, steps + 1)]
    assert all(0.0 <= rate <= 0.7 for rate in found)
    # The period of the loop is at least one step, so that the last part of a step does not divide by nearly nothing.
    if steps - decay_from * steps >= 1:
        np.testing.assert_allclose(found, [rate_witness(k, steps, settings) for k in range(1, steps + 1)], rtol=1e-12, atol=1e-15)


def test_the_rate_in_numbers():
    settings = replace(SETTINGS, learning_rate=8.0, warmup_steps=4, decay_from=0.5)
    found = [learning_rate(k, 16, settings) for k in range(1, 17)]
    assert found[:8] == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    np.testing.assert_allclose(found[11], 4.0)
    assert all(a > b for a, b in zip(found[7:], found[8:], strict=False))
    assert found[15] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [0.0, 0.3, 0.999, 1.5, 40.0])
def test_clipping(dtype, length):
    gradient = np.random.default_rng(1).standard_normal(SIZE)
    gradient = (gradient / math.sqrt(sum(g * g for g in gradient)) * length).astype(dtype)
    scale = clip_scale(gradient, clip_norm=1.0)
    assert scale.dtype == dtype
    clipped = gradient * scale
    norm = math.sqrt(sum(float(g) ** 2 for g in clipped))
    assert norm <= 1.0 + 1e-6
    if length <= 0.999:
        assert clipped.tobytes() == gradient.tobytes()
    else:
        np.testing.assert_allclose(clipped, gradient / length, rtol=3e-6)


@pytest.mark.parametrize(
    ("mode", "dtype", "tolerance"), [("spec", np.float64, 1e-14), ("spec", np.float32, 1e-6), ("fast", np.float32, 1e-6)]
)
def test_the_moving_average(mode, dtype, tolerance):
    """Against decay * average + (1 - decay) * weights, the decay as tf.train.ExponentialMovingAverage computes it."""
    vectors = np.random.default_rng(2).standard_normal((30, SIZE))
    average, witness = vectors[0].astype(dtype), vectors[0].tolist()
    with primitive.mode(mode):
        for step, vector in enumerate(vectors[1:], 1):
            average = ema_step(average, vector.astype(dtype), share=ema_share(step, decay=0.6))
            decay = min(0.6, step / (10 + step))
            witness = [decay * a + (1 - decay) * w for a, w in zip(witness, vector.tolist(), strict=True)]
    assert average.dtype == dtype
    np.testing.assert_allclose(average, witness, rtol=0, atol=tolerance * 3)


def test_the_share_of_the_newest_weights():
    assert ema_share(1, decay=0.999) == pytest.approx(10 / 11)
    assert ema_share(90, decay=0.999) == pytest.approx(0.1)
    assert ema_share(10**6, decay=0.999) == pytest.approx(0.001)


def test_a_vector_holds_its_arrays_in_order():
    arrays = {"b": np.arange(6.0).reshape(2, 3), "a": np.array([7.0]), "c": np.arange(8.0).reshape(2, 1, 4) + 10}
    vector = flatten_vector(arrays, list(arrays))
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, *range(10, 18)]
    back = unflatten_vector(vector, {key: value.shape for key, value in arrays.items()})
    assert list(back) == list(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)


class Line:
    """Fit y = w x + b: a task whose gradient is known."""

    def __init__(self):
        self.threads: list[int] = []

    def initial(self) -> dict[str, np.ndarray]:
        return {"weight": np.array([[0.5, -1.0]], dtype=np.float32), "bias": np.array([0.25], dtype=np.float32)}

    def batch(self, step: int) -> dict[str, np.ndarray]:
        x = np.random.default_rng(step).standard_normal((5, 2)).astype(np.float32)
        return {"x": x, "y": x @ np.array([[2.0], [1.0]], dtype=np.float32) + np.float32(3.0)}

    def loss(self, params, batch):
        self.threads += [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        return mean(square(linear(batch["x"], params.weight, params.bias) - batch["y"]))


def test_loss_and_gradient_of_a_line():
    task = Line()
    batch = task.batch(1)
    loss, gradient = loss_and_gradient(task, task.initial(), batch)
    errors = [0.5 * x[0] - 1.0 * x[1] + 0.25 - y[0] for x, y in zip(batch["x"].tolist(), batch["y"].tolist(), strict=True)]
    expected = [sum(2 * e * x[i] for e, x in zip(errors, batch["x"].tolist(), strict=True)) / 5 for i in range(2)]
    assert loss == pytest.approx(sum(e * e for e in errors) / 5, rel=1e-5)
    np.testing.assert_allclose(gradient, [*expected, sum(2 * e for e in errors) / 5], rtol=1e-5)


def test_each_half_multiplies_on_one_thread():
    task = Line()
    with threadpool_limits(limits=2, user_api="blas"):
        loss_and_gradient(task, task.initial(), task.batch(1))
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {min(2, os.cpu_count() or 1)}
    assert task.threads and set(task.threads) == {1}


def test_a_line_is_found(tmp_path):
    settings = replace(SETTINGS, learning_rate=0.2, weight_decay=0.0, clip_norm=100.0)
    *_, state = go_on(Line(), tmp_path, steps=80, save_seconds=1e9, settings=settings)
    np.testing.assert_allclose(state.vector, [2.0, 1.0, 3.0], atol=0.1)
    assert len(state.losses) == 80
    assert state.losses[-1] < 1e-3 * state.losses[0]


def test_the_halves_of_an_odd_batch_weigh_as_their_samples():
    task = VAE_TASK
    params, batch = task.initial(), task.batch(5)
    assert len(batch["images"]) == 3
    loss, gradient = loss_and_gradient(task, params, batch)
    whole, grads = value_and_grad(lambda variables: task.loss(tree(variables), batch), params)
    np.testing.assert_allclose(loss, whole, rtol=1e-6)
    expected = flatten_vector(grads, list(params))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_the_average_is_given_back_by_name(tmp_path):
    state = last(UNET_TASK, tmp_path, steps=1)
    arrays = averaged(state, UNET_TASK)
    first = UNET_TASK.initial()
    assert {key: value.shape for key, value in arrays.items()} == {key: value.shape for key, value in first.items()}
    share = ema_share(1, decay=SETTINGS.ema_decay)
    new = unflatten_vector(state.vector, {key: value.shape for key, value in first.items()})
    for key, value in arrays.items():
        np.testing.assert_allclose(value, first[key] + share * (new[key] - first[key]), rtol=1e-5, atol=1e-8)
