"""The picture without a decoder is a coarse picture of what the decoder draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import refdiff
from refdiff.errors import BadRequest
from refdiff.pipelines.preview import SD1_COLOURS, colours_of, preview


@pytest.fixture(scope="module")
def drawn():
    pipe = refdiff.load()
    return pipe, pipe(["a large red circle on a yellow background", "a small blue cross"], seed=[11, 12])


def test_it_is_nearly_the_picture_in_large_squares(drawn):
    pipe, out = drawn
    coarse = preview(pipe, out.latents)
    assert [image.size for image in coarse] == [image.size for image in out.images]
    one, other = (np.stack([np.asarray(x, dtype=np.float64) for x in images]) for images in (out.images, coarse))
    assert (other == squares(other)).all()  # one colour for each latent pixel
    error = ((other - squares(one)) ** 2).mean()
    assert error < 0.25 * ((one - one.mean(axis=(0, 1, 2))) ** 2).mean()  # 0.1 over many pictures


def squares(x):
    """Pictures in squares of their mean colours, as large as latent pixels."""
    return x.reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)


def told(pipe, colours, **config):
    vae = replace(pipe.vae, config=replace(pipe.vae.config, **config))
    return replace(pipe, vae=vae, defaults={**pipe.defaults, "latent_colours": colours})


def test_stable_diffusions_colours_are_known(drawn):
    pipe = told(drawn[0], [], scaling_factor=0.18215)
    np.testing.assert_array_equal(colours_of(pipe), [*SD1_COLOURS, (0, 0, 0)])


@pytest.mark.parametrize("colours", [[], [[1, 2, 3]], [[1, 2], [3]], [["a", "b", "c"]] * 5])
def test_a_model_without_colours_is_told_so(drawn, colours):
    with pytest.raises(BadRequest, match="latent_colours"):
        preview(told(drawn[0], colours, scaling_factor=0.5), drawn[1].latents)
