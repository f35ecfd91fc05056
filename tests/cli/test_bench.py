"""`refdiff bench`: every call of an op is listed once, and what ran without a kernel is named with the reason."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from refdiff.cli import refdiff as command
from refdiff.core.primitive import KERNELS, Unsupported, products
from refdiff.kernels.cpu import halves


def run(*args: str):
    return CliRunner().invoke(command, ["bench", "--size", "32", "--runs", "1", *args])


def listed(text: str, name: str) -> list[tuple[int, str]]:
    """How often, and how, an op ran, in the order of the page."""
    return [(int(n), way) for n, way in re.findall(rf"^  {name} +(\d+) .*%  (.*)$", text, re.MULTILINE)]


def test_two_works_are_timed():
    text = run().stdout
    assert re.search(r"^embedded, 32x32 pixels, float32, fast kernels, products of float32, \d+ threads\n", text)
    assert len(re.findall(r"^one .*: \d+\.\d+ s$", text, re.MULTILINE)) == 2
    assert "conv2d" not in text


def test_the_dtype_is_that_of_the_model_and_of_its_products(monkeypatch):
    asked = []

    def linear(x, weight, bias):
        asked.append((weight.dtype.itemsize, products()))
        raise Unsupported("only looking")

    monkeypatch.setitem(KERNELS, ("linear", "numpy"), linear)
    run()
    assert {which for _, which in asked} == {"float32"}
    for multiplies, which in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(halves, "MULTIPLIES", multiplies)
        asked.clear()
        assert f"32x32 pixels, bfloat16, fast kernels, products of {which}" in run("--dtype", "bfloat16").stdout
        assert set(asked) == {(2, which)}


def test_kernels_and_what_runs_without_one(monkeypatch):
    def declined(*args, **constants):
        raise Unsupported("nothing today")

    monkeypatch.setitem(KERNELS, ("group_norm", "numpy"), declined)
    text = run("--explain").stdout
    assert [way for _, way in listed(text, "conv2d")] == ["kernel", "kernel"]
    assert [way for _, way in listed(text, "group_norm")] == ["specification: nothing today"] * 2
    assert [way for _, way in listed(text, "concatenate")] == ["specification: no kernel for numpy"]


def test_the_specification_alone():
    text = run("--explain", "--kernels", "spec").stdout
    assert {way for _, way in listed(text, "conv2d")} == {"specification: the specification was asked for"}
    assert "kernel\n" not in text


@pytest.mark.parametrize("size", ["13", "0", "33"])
def test_a_size_that_is_not_on_the_grid(size):
    result = CliRunner().invoke(command, ["bench", "--size", size])
    assert "is not on this model's grid" in str(result.exception)


def test_threads_are_those_that_are_asked_for(monkeypatch):
    from threadpoolctl import threadpool_info, threadpool_limits

    from refdiff.kernels.cpu import common

    for name in ("THREADS", "_pool"):
        monkeypatch.setattr(common, name, getattr(common, name))
    with threadpool_limits(limits=2, user_api="blas"):
        assert "fast kernels, products of float32, 1 threads" in run("--threads", "1").stdout
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {1}
    monkeypatch.setenv("REFDIFF_THREADS", "3")
    assert "fast kernels, products of float32, 3 threads" in run().stdout
    assert run("--threads", "0").exit_code != 0
