"""The text encoder's own corners: what a token sees, and which row is the text's vector."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.params import flatten, tree
from refdiff.core.tape import value_and_grad
from refdiff.models.clip_text import CLIPTextConfig, clip_text, declare
from refdiff.ops import square
from tests.models.examples import CLIPS, random_params, token_ids


def network(name: str):
    config = CLIPTextConfig.from_dict(CLIPS[name])
    return config, random_params(declare(config), np.float64)


@pytest.mark.parametrize("length", [1, 2, 11])
@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_takes_any_length_up_to_its_table(length, kind):
    config, params = network("quick gelu")
    hidden, pooled = clip_text(params, config, token_ids()[:, :1].repeat(length, axis=1).astype(kind))
    assert (hidden.shape, pooled.shape) == ((2, length, 24), (2, 24))


@pytest.mark.parametrize("name", CLIPS)
def test_a_token_sees_no_later_one(name):
    config, params = network(name)
    ids, other = token_ids(), token_ids().copy()
    other[:, 4] = 7
    (hidden, _), (changed, _) = (clip_text(params, config, i) for i in (ids, other))
    np.testing.assert_array_equal(hidden[:, :4], changed[:, :4])
    assert (np.abs(hidden - changed)[:, 4:].max(axis=-1) > 1e-6).all()


def test_the_vector_of_a_text_is_the_row_of_its_first_end_token():
    config, params = network("quick gelu")
    hidden, pooled = clip_text(params, config, token_ids())
    np.testing.assert_array_equal(pooled, [hidden[0, 5], hidden[1, 8]])


def test_without_an_end_token_it_is_the_first_row():
    config, params = network("quick gelu")
    hidden, pooled = clip_text(params, config, np.minimum(token_ids(), 40))
    np.testing.assert_array_equal(pooled, hidden[:, 0])


def test_in_the_first_release_the_end_token_is_the_largest_id():
    config, params = network("the first release")
    ids = token_ids().copy()
    ids[0, 3], ids[0, 5:] = 44, 2
    hidden, pooled = clip_text(params, config, ids)
    np.testing.assert_array_equal(pooled, [hidden[0, 0], hidden[1, 8]])  # 48 begins the first text


@pytest.mark.parametrize("which", [0, 1])
def test_can_be_trained_through_either_result(which):
    config, params = network("quick gelu")
    flat = flatten(params)

    def loss(variables):
        return square(clip_text(tree(variables), config, token_ids())[which]).mean()

    value, grads = value_and_grad(loss, flat)
    step = {key: flat[key] - 1e-4 * grads[key] for key in flat}
    expected = sum(float((g * g).sum()) for g in grads.values()) * 1e-4
    assert value - value_and_grad(loss, step)[0] == pytest.approx(expected, rel=0.05)
    used = np.unique(token_ids() if which == 0 else token_ids()[:, :6])
    moved = np.abs(grads["text_model.embeddings.token_embedding.weight"]).max(axis=1) > 0
    assert set(used) <= set(np.flatnonzero(moved)) | {49}
