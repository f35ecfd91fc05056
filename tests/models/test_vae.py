"""The autoencoder's own corners: sizes, the posterior, its limits."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.params import flatten
from refdiff.models.vae import VAEConfig, declare, decode, encode, posterior_sample
from tests.models.examples import VAES, normal, random_params
from tests.models.networks import changed


def network(name: str):
    config = VAEConfig.from_dict(VAES[name])
    return config, random_params(declare(config), np.float64)


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 5), (4, 4)])
def test_there_and_back_keeps_the_size(name, size):
    config, params = network(name)
    height, width = (config.downscale * n for n in size)
    mean, logvar = encode(params, config, normal(2, 3, height, width, dtype=np.float64))
    assert mean.shape == logvar.shape == (2, config.latent_channels, *size)
    assert decode(params, config, mean).shape == (2, 3, height, width)


def test_how_far_the_encoder_shrinks():
    assert [network(name)[0].downscale for name in VAES] == [2, 4]


def test_a_draw_has_the_mean_and_the_variance():
    mean, logvar = normal(2, 3, 4, 5, dtype=np.float64), normal(2, 3, 4, 5, dtype=np.float64, seed=2)
    noise = normal(2, 3, 4, 5, dtype=np.float64, seed=3)
    np.testing.assert_array_equal(posterior_sample(mean, logvar, noise * 0), mean)
    ratio = (posterior_sample(mean, logvar, noise) - mean) / noise
    np.testing.assert_allclose(ratio**2, np.exp(logvar))


@pytest.mark.parametrize(("offset", "limit"), [(1e3, 20.0), (-1e3, -30.0)])
def test_the_variance_is_limited(offset, limit):
    config, params = network("two levels")
    bias = flatten(params)["quant_conv.bias"].copy()
    bias[config.latent_channels :] += offset
    mean, logvar = encode(changed(params, "quant_conv.bias", bias), config, normal(1, 3, 8, 8, dtype=np.float64))
    assert (logvar == limit).all()
    assert np.abs(mean).max() < 100


def test_the_decoder_does_not_limit_its_pixels():
    config, params = network("two levels")
    pixels = decode(params, config, 50 * normal(1, 4, 4, 4, dtype=np.float64))
    assert pixels.max() > 1
    assert pixels.min() < -1
