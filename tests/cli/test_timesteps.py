"""`generate --timesteps`: a list or a name, and what is wrong with one."""

from __future__ import annotations

import pytest

from refdiff.cli.asked import times_of
from refdiff.errors import BadRequest


def test_a_list_or_a_name():
    assert times_of(None) is None
    assert times_of("999,850.5,24") == (999.0, 850.5, 24.0)
    assert times_of("StableDiffusionTimesteps")[:3] == (999, 850, 736)


@pytest.mark.parametrize("text", ["", "9,x", "1,2", "5,,4", "5;4", "nan", "StableDiffusionSigmas"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(BadRequest, match="timesteps") as refusal:
        times_of(text)
    assert "\n" not in str(refusal.value)
