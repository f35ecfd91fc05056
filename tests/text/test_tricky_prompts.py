"""Prompts made to trip a tokenizer, with the ids that tools/make_tokenizer_fixture.py got from transformers."""

import dataclasses
import json
from pathlib import Path

import pytest

from refdiff.text import Tokenizer
from refdiff.text.settings import SpecialToken

FIXTURE = json.loads((Path(__file__).parent / "tricky_prompts.json").read_text(encoding="ascii"))
ROWS = FIXTURE["prompts"]


@pytest.fixture(scope="module")
def padded_as_sd2() -> Tokenizer:
    clip = Tokenizer.clip()
    mark = SpecialToken("!", normalised=False, left=False, right=False, alone=False, special=True)
    settings = dataclasses.replace(clip.settings, pad="!", special=((0, mark), *clip.settings.special))
    return Tokenizer(clip.vocabulary, settings)


def test_the_fixture_is_not_vacuous() -> None:
    assert FIXTURE["made_by"].endswith("transformers 5.23.0")
    assert len(ROWS) == len({row["prompt"] for row in ROWS}) >= 300
    assert all(row["ids"][0] == 49406 and row["ids"][-1] == 49407 and 2 <= len(row["ids"]) <= 77 for row in ROWS)
    assert sum(len(row["ids"]) == 77 for row in ROWS) >= 20
    assert len({number for row in ROWS for number in row["ids"]}) > 800


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row["prompt"])[:40])
def test_ids_are_those_of_transformers(row: dict) -> None:
    padding = [49407] * (77 - len(row["ids"]))
    assert list(Tokenizer.clip().encode(row["prompt"]).ids) == row["ids"] + padding


def test_ids_where_the_padding_is_an_exclamation_mark(padded_as_sd2: Tokenizer) -> None:
    """As in SD 2: the mark is then a special token, so one that is typed has the id of the padding too."""
    others = 0
    for row in ROWS:
        expected = row.get("ids_where_pad_is_!", row["ids"])
        assert list(padded_as_sd2.encode(row["prompt"]).ids) == expected + [0] * (77 - len(expected))
        others += expected != row["ids"]
    assert others > 30


def test_ids_that_everyone_quotes() -> None:
    """Written here by hand, so that a fixture made from a wrong vocabulary could not pass: the sentence that
    transformers' documentation shows, and the last merge of all.
    """
    ids = Tokenizer.clip().encode("a photo of a cat").ids
    assert ids[:7] == (49406, 320, 1125, 539, 320, 2368, 49407)
    assert Tokenizer.clip().encode("jekyll").ids[1] == 49405
