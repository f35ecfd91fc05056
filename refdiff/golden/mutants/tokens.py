"""Bugs of the tokenizer: other ids for the same prompt."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tokenizers import Regex, pre_tokenizers

from refdiff.golden.mutants.kind import Variant, Variants, altered
from refdiff.golden.stages import Setting
from refdiff.text.byte_symbols import END_OF_WORD, byte_symbols, symbols_of
from refdiff.text.splitting import splitter, words_of
from refdiff.text.tokenizer import Encoding, Tokenizer
from refdiff.text.vocabulary import apply_merges

Ids = Callable[[Tokenizer, str], Sequence[int]]  # the ids of a text, from the start token to the padding


class Other(Tokenizer):
    """A tokenizer whose ids are made in another way."""

    def __init__(self, right: Tokenizer, ids: Ids):
        vars(self).update(vars(right))  # all that it has, so that nothing is built again
        self.right, self.other = right, ids

    def encode(self, text: str) -> Encoding:
        """As the right one, but for the ids."""
        return replace(self.right.encode(text), ids=tuple(self.other(self.right, text)))


def tokenizing(ids: Ids) -> Variant:
    """A variant whose tokenizer gives these ids."""

    def change(setting: Setting) -> Setting:
        pipe = setting.pipe
        return replace(setting, pipe=replace(pipe, tokenizer=Other(pipe.tokenizer, ids)))

    return altered(change)


def padded_with(token: str, tokenizer: Tokenizer, text: str) -> list[int]:
    """What stands behind the first end token is another token."""
    ids = list(tokenizer.encode(text).ids)
    first = ids.index(tokenizer.end_id) + 1
    other = tokenizer.end_id if token == "end" else 0
    return ids[:first] + [other] * (len(ids) - first)


def framed(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Start, as many ids as there is room for, end, padding."""
    kept = [tokenizer.start_id, *ids[: tokenizer.max_length - 2], tokenizer.end_id]
    return kept + [tokenizer.pad_id] * (tokenizer.max_length - len(kept))


def merged(tokenizer: Tokenizer, words: Sequence[str], symbols: Callable[[str], list[str]]) -> list[int]:
    """The ids of words whose merges begin with these symbols; what the vocabulary lacks is the unknown token."""
    ids, ranks = tokenizer.vocabulary.ids, {pair: rank for rank, pair in enumerate(tokenizer.vocabulary.merges)}
    unknown = ids[tokenizer.settings.unknown]
    pieces = [piece for word in words for piece in apply_merges(symbols(word), ranks)]
    return framed(tokenizer, [ids.get(piece, unknown) for piece in pieces])


def unmarked(tokenizer: Tokenizer, text: str) -> list[int]:
    """Words without a mark at their end."""
    return merged(tokenizer, words_of(text), bare_symbols)


def blank_first(tokenizer: Tokenizer, text: str) -> list[int]:
    """Words that begin with a blank, as GPT-2's."""
    return merged(tokenizer, [f" {word}" for word in words_of(text)], bare_symbols)


def bare_symbols(word: str) -> list[str]:
    """One symbol a byte and nothing more."""
    symbol = byte_symbols()
    return [symbol[byte] for byte in word.encode("utf-8")]


def clusters(word: str) -> list[str]:
    """A letter and the accents that follow it as one symbol, the last with the mark of the word's end."""
    symbol, found = byte_symbols(), list[str]()
    for letter in word:
        written = "".join(symbol[byte] for byte in letter.encode("utf-8"))
        if found and unicodedata.combining(letter):
            found[-1] += written
        else:
            found.append(written)
    return [*found[:-1], found[-1] + END_OF_WORD]


def by_clusters(tokenizer: Tokenizer, text: str) -> list[int]:
    """Merges that begin with what people see as one character."""
    return merged(tokenizer, words_of(text), clusters)


def cut(text: str, *, lower: bool, pattern: str) -> list[str]:
    """The words of a text by another regular expression, or with the case as it was typed."""
    clean = " ".join(unicodedata.normalize("NFC", text.lower() if lower else text).split())
    cutter = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True) if pattern else splitter()
    return [clean[start:end] for _, (start, end) in cutter.pre_tokenize_str(clean)]


def otherwise_cut(tokenizer: Tokenizer, text: str, *, lower: bool, pattern: str) -> list[int]:
    """The ids of those words."""
    return merged(tokenizer, cut(text, lower=lower, pattern=pattern), symbols_of)


def whole_words(tokenizer: Tokenizer, text: str) -> list[int]:
    """A word that stands in the vocabulary as it is typed is that token, though the vocabulary is written in bytes' symbols."""
    ids, found = tokenizer.vocabulary.ids, list[int]()
    for word in words_of(text):
        typed = word + END_OF_WORD
        found += [ids[typed]] if typed in ids else merged_unframed(tokenizer, word)
    return framed(tokenizer, found)


def without(what: str, tokenizer: Tokenizer, text: str) -> list[int]:
    """A row without its start token, or cut at its end whatever stands there."""
    ids = merged_unframed(tokenizer, text)
    row = [*ids, tokenizer.end_id] if what == "start" else [tokenizer.start_id, *ids]
    if what == "end of long texts" and len(row) < tokenizer.max_length:
        row.append(tokenizer.end_id)
    return (row + [tokenizer.pad_id] * tokenizer.max_length)[: tokenizer.max_length]


def merged_unframed(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text of any length, without start, end and padding."""
    ids, ranks = tokenizer.vocabulary.ids, {pair: rank for rank, pair in enumerate(tokenizer.vocabulary.merges)}
    return [ids[piece] for word in words_of(text) for piece in apply_merges(symbols_of(word), ranks)]


VARIANTS: Variants = {
    "tok-pad-eos-vs-0": {
        "0": tokenizing(partial(padded_with, "0")),
        "the end token": tokenizing(partial(padded_with, "end")),
    },
    "tok-bpe-no-eow": {"no mark": tokenizing(unmarked), "a blank first": tokenizing(blank_first)},
    "tok-pretok": {
        "case kept": tokenizing(partial(otherwise_cut, lower=False, pattern="")),
        "digits together": tokenizing(
            partial(otherwise_cut, lower=True, pattern=r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]+|[^\s\p{L}\p{N}]+")
        ),
        "at blanks alone": tokenizing(partial(otherwise_cut, lower=True, pattern=r"\S+")),
    },
    "tok-merge-unit": {"clusters": tokenizing(by_clusters)},
    "tok-reference-quirk": {"whole words": tokenizing(whole_words)},
    "tok-trunc": {
        "start": tokenizing(partial(without, "start")),
        "end": tokenizing(partial(without, "end")),
        "end of long texts": tokenizing(partial(without, "end of long texts")),
    },
}
