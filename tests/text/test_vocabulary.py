"""Byte symbols, the vocabulary that follows from merges, and small vocabularies built from words."""

import gzip
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.errors import BadRequest
from refdiff.text import Tokenizer, build_small
from refdiff.text.byte_symbols import byte_symbols, symbols_of
from refdiff.text.splitting import words_of
from refdiff.text.vocabulary import CLIP_MERGES, apply_merges, clip_vocabulary, small_vocabulary
from refdiff.weights_path import weights_dir

CAPTION_WORDS = "a large small red yellow circle square on background to the left right of above below there here".split()
words = st.lists(st.text("abcdefgh\u00e9\u6771\U0001d41a", min_size=1, max_size=9), min_size=1, max_size=12)


def test_byte_symbols_are_256_visible_characters() -> None:
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256))
    assert len(set(symbols.values())) == 256
    assert all(symbol.isprintable() and not symbol.isspace() for symbol in symbols.values())
    assert (symbols[ord("A")], symbols[0x20], symbols[0x00], symbols[0xAD]) == ("A", "\u0120", "\u0100", "\u0143")
    assert list(symbols.values())[:3] == ["!", '"', "#"]


def test_symbols_of_a_word_end_with_the_mark() -> None:
    assert symbols_of("cat") == ["c", "a", "t</w>"]
    assert symbols_of("\u00e9") == ["\u00c3", "\u00a9</w>"]
    assert symbols_of("e\u0301") == ["e", "\u00cc", "\u0123</w>"]


def test_clip_vocabulary() -> None:
    vocabulary = clip_vocabulary()
    assert (len(vocabulary.ids), len(vocabulary.merges)) == (49408, 48894)
    assert sorted(vocabulary.ids.values()) == list(range(49408))
    known = {"!": 0, "!</w>": 256, "in": 512, "a</w>": 320, "the</w>": 518, "<|startoftext|>": 49406}
    assert {token: vocabulary.ids[token] for token in known} == known


def test_the_manifest_describes_the_file() -> None:
    entry = json.loads((weights_dir() / "manifest.json").read_text(encoding="utf-8"))[CLIP_MERGES]
    data = (weights_dir() / CLIP_MERGES).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
    assert gzip.decompress(data).count(b"\n") == 48894
    assert entry["licence"] == "MIT"
    licence = (weights_dir() / "clip_vocab" / "LICENSE.txt").read_text(encoding="utf-8")
    assert "OpenAI" in licence and "Permission is hereby granted" in licence


@given(st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_ids_are_those_of_the_written_out_algorithm(text: str) -> None:
    """A second witness of the merging: the loop of vocabulary.py over every word, against the library's."""
    vocabulary = clip_vocabulary()
    ranks = {merge: rank for rank, merge in enumerate(vocabulary.merges)}
    pieces = [piece for word in words_of(text) for piece in apply_merges(symbols_of(word), ranks)]
    ids = Tokenizer.clip().encode(text).ids
    assert list(ids[1:]).index(49407) == min(len(pieces), 75)
    assert list(ids[1 : len(pieces) + 1]) == [vocabulary.ids[piece] for piece in pieces][:75]


def test_a_small_vocabulary_has_the_words_and_no_more() -> None:
    small = build_small(CAPTION_WORDS)
    ids = small.vocabulary.ids
    assert list(ids.values()) == list(range(len(ids)))
    assert list(ids)[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert (small.start_id, small.end_id, small.pad_id) == (len(ids) - 2, len(ids) - 1, len(ids) - 1)
    assert (small.vocab_size, small.max_length) == (len(ids), 77)
    prefixes = {word[:n] for word in CAPTION_WORDS for n in range(2, len(word))}
    merged = {left + right for left, right in small.vocabulary.merges}
    assert {token.removesuffix("</w>") for token in merged if token.endswith("</w>")} == set(CAPTION_WORDS) - {"a"}
    assert {token for token in merged if not token.endswith("</w>")} <= prefixes
    assert len(small.vocabulary.merges) == len(set(small.vocabulary.merges)) == len(merged)


def test_words_whose_merges_would_cross() -> None:
    """ "er" joined first would leave h + er + e</w> of "here", had its merges not been made in view of it."""
    small = build_small(["era", "here", "there", "the"])
    assert [len(_tokens(small, word)) for word in ("era", "here", "there", "the")] == [1, 1, 1, 1]


@given(words)
def test_each_word_of_a_small_vocabulary_is_one_token(taught: list[str]) -> None:
    clean = [word for word in taught if words_of(word) == [word]]
    small = build_small(clean, max_length=16)
    for word in clean:
        assert _tokens(small, word) == (small.vocabulary.ids[_end_piece(word, small)],)
    assert small.known_words == frozenset(clean)
    assert small_vocabulary(clean) == small.vocabulary


@pytest.mark.parametrize("word", ["Red", "it's", "10", "two words", "", " a", "e\u0301", "red,"])
def test_a_word_that_prompts_never_contain_is_refused(word: str) -> None:
    with pytest.raises(BadRequest, match="cannot be one token"):
        build_small(["a", word])


def _tokens(tokenizer: Tokenizer, word: str) -> tuple[int, ...]:
    ids = tokenizer.encode(word).ids
    return ids[1 : ids.index(tokenizer.end_id)]


def _end_piece(word: str, tokenizer: Tokenizer) -> str:
    symbol = byte_symbols()
    return "".join(symbol[byte] for byte in word.encode()) + "</w>"
