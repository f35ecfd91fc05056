"""What encode() gives beside the ids: the part cut off, the words, and the words that a model was never taught."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.errors import BadRequest
from refdiff.text import Tokenizer, build_small
from refdiff.text.settings import SpecialToken

SMALL = build_small("a large red circle on yellow background , it 's".split(), max_length=8)


def test_an_empty_prompt_is_start_end_and_padding() -> None:
    encoding = Tokenizer.clip().encode("")
    assert encoding.ids == (49406, *[49407] * 76)
    assert (encoding.cut, encoding.words) == ("", ())


def test_the_part_without_room_is_named_as_it_was_typed() -> None:
    encoding = SMALL.encode("A large red circle\n  on a YELLOW  background ")
    assert len(encoding.ids) == 8
    assert encoding.ids[-1] == SMALL.end_id
    assert encoding.cut == "YELLOW  background"
    assert encoding.words == ("a", "large", "red", "circle", "on", "a", "yellow", "background")


def test_a_prompt_that_just_fits_is_not_cut() -> None:
    assert SMALL.encode("a large red circle on a  ").cut == ""
    assert SMALL.encode("a large red circle on a a").cut == "a"
    fits, over = (Tokenizer.clip().encode("cat " * n) for n in (75, 76))
    assert (fits.cut, over.cut) == ("", "cat")
    assert fits.ids == over.ids == (49406, *[2368] * 75, 49407)


def test_a_cut_inside_a_word() -> None:
    # g, re (from "red"), e, and then n has no room.
    assert SMALL.encode("a large red green").cut == "n"


@given(st.text(st.sampled_from("ab \t\n\x1c\xa0\u200b\u0301\u00e9\u1112\u1161\u6771\U0001f600!1'<|>"), max_size=30))
def test_the_part_cut_off_is_the_end_of_the_prompt(text: str) -> None:
    encoding = SMALL.encode(text)
    assert len(encoding.ids) == 8
    assert encoding.ids[0] == SMALL.start_id
    assert text.strip(" \t\r\n").endswith(encoding.cut)
    is_full = SMALL.end_id not in encoding.ids[1:-1]
    assert is_full or encoding.cut == ""
    roomy = Tokenizer(SMALL.vocabulary, dataclasses.replace(SMALL.settings, max_length=500)).encode(text)
    assert roomy.cut == ""
    assert (encoding.cut != "") == (roomy.ids.index(SMALL.end_id) > 7)
    assert roomy.ids[1:7] == encoding.ids[1:7] or not is_full
    assert roomy.words == encoding.words


def test_words_are_cleaned_and_cut() -> None:
    words = Tokenizer.clip().encode("It's  CAFE\u0301 no. 42!!\u3000\U0001f600\u6771\u4eac").words
    assert words == ("it", "'s", "caf\u00e9", "no", ".", "4", "2", "!!", "\U0001f600", "\u6771\u4eac")


def test_untaught_words_are_named_once() -> None:
    assert SMALL.untaught("It's a Purple circle, a purple DOG 7") == ["purple", "dog", "7"]
    assert SMALL.untaught("a red circle") == []
    # A single letter is a token of every vocabulary, but was not taught by that.
    assert SMALL.untaught("a b") == ["b"]
    assert SMALL.known_words == {"a", "large", "red", "circle", "on", "yellow", "background", ",", "it", "'s"}


def test_a_full_vocabulary_has_no_untaught_words() -> None:
    assert Tokenizer.clip().known_words == frozenset()
    assert Tokenizer.clip().untaught("xkqzjw") == []


def test_a_special_token_of_two_words_is_found_across_any_white_space() -> None:
    token = SpecialToken("my cat", normalised=True, left=False, right=False, alone=False, special=False)
    special = (*SMALL.settings.special, (SMALL.vocab_size, token))
    tokenizer = Tokenizer(SMALL.vocabulary, dataclasses.replace(SMALL.settings, special=special))
    assert tokenizer.encode("a My \r\n cat").ids[2:4] == (SMALL.vocab_size, SMALL.end_id)
    assert tokenizer.vocab_size == SMALL.vocab_size + 1


def test_half_of_a_character_is_refused() -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        Tokenizer.clip().encode("a \ud83d cat")


def test_an_encoding_cannot_be_changed() -> None:
    encoding = SMALL.encode("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoding.cut = "x"  # type: ignore[misc]
