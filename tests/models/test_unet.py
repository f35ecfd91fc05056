"""The U-Net's own corners: sizes, times, texts."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.params import flatten_declaration
from refdiff.core.tap import observe
from refdiff.models.unet import UNetConfig, declare, unet
from tests.models.examples import UNETS, normal, random_params


def network(name: str):
    config = UNetConfig.from_dict(UNETS[name])
    return config, random_params(declare(config), np.float64)


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 8), (5, 3), (9, 7), (16, 17)])
def test_takes_any_size(name, size):
    config, params = network(name)
    x, context = normal(1, config.in_channels, *size, dtype=np.float64), normal(1, 4, 12, dtype=np.float64)
    y = unet(params, config, x, np.array(10), context)
    assert y.shape == (1, config.out_channels, *size)
    assert np.isfinite(y).all()


def test_the_up_path_takes_the_sizes_of_the_down_path():
    config, params = network("four levels")
    sizes = {}
    with observe(lambda name, x: sizes.setdefault(name, x.shape[2:])):
        unet(params, config, normal(1, 4, 9, 22, dtype=np.float64), np.array(1), normal(1, 4, 12, dtype=np.float64))
    assert [sizes[f"down_blocks.{i}"] for i in range(4)] == [(5, 11), (3, 6), (2, 3), (2, 3)]
    assert [sizes[f"up_blocks.{i}"] for i in range(4)] == [(3, 6), (5, 11), (9, 22), (9, 22)]


@pytest.mark.parametrize("name", UNETS)
def test_one_time_for_all_is_that_time_for_each(name):
    config, params = network(name)
    x, context = normal(2, config.in_channels, 4, 6, dtype=np.float64), normal(2, 3, 12, dtype=np.float64)
    y = unet(params, config, x, np.array(33), context)
    for same in (np.array([33, 33]), np.array(33.0), np.float32(33), np.array([33.0, 33.0])):
        np.testing.assert_array_equal(unet(params, config, x, same, context), y)
    assert np.abs(unet(params, config, x, np.array([33, 34]), context)[1] - y[1]).max() > 1e-3


def test_a_fraction_of_a_step_is_not_cut_off():
    config, params = network("two levels")
    x, context = normal(1, 4, 4, 6, dtype=np.float64), normal(1, 3, 12, dtype=np.float64)
    low, middle, high = (unet(params, config, x, np.array(t), context) for t in (10, 10.5, 11))
    assert min(np.abs(middle - low).max(), np.abs(middle - high).max()) > 1e-4


@pytest.mark.parametrize("tokens", [1, 2, 77])
def test_takes_any_length_of_text(tokens):
    config, params = network("two levels")
    x = normal(1, 4, 4, 6, dtype=np.float64)
    y = unet(params, config, x, np.array(500), normal(1, tokens, 12, dtype=np.float64))
    assert y.shape == x.shape


def test_the_order_of_the_text_does_not_matter_but_its_content_does():
    config, params = network("every level attends")
    x, context = normal(1, 9, 4, 6, dtype=np.float64), normal(1, 5, 12, dtype=np.float64)
    y = unet(params, config, x, np.array(500), context)
    np.testing.assert_allclose(unet(params, config, x, np.array(500), context[:, ::-1]), y, atol=1e-10)
    assert np.abs(unet(params, config, x, np.array(500), context * 1.1) - y).max() > 1e-4


def test_attention_stands_where_the_block_types_say():
    config, _ = network("a list of heads")
    names = flatten_declaration(declare(config))
    for part in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1", "up_blocks.2"):
        assert any(name.startswith(f"{part}.attentions.") for name in names)
    for part in ("down_blocks.2", "up_blocks.0"):
        assert not any(name.startswith(f"{part}.attentions.") for name in names)
    assert not any("down_blocks.2.downsamplers" in name or "up_blocks.2.upsamplers" in name for name in names)
