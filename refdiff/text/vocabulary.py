"""A byte-pair vocabulary: the ids of its tokens and the merges that make them, in order of rank."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from refdiff.errors import BadRequest
from refdiff.text.byte_symbols import END_OF_WORD, byte_symbols, symbols_of
from refdiff.text.splitting import words_of
from refdiff.weights_path import weights_dir

START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = "clip_vocab/merges.txt.gz"

Merge = tuple[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """`ids` maps each token to its row of the embedding; `merges[r]` is the pair that is joined r-th of all."""

    ids: Mapping[str, int]
    merges: tuple[Merge, ...]


def from_merges(merges: Iterable[Merge]) -> Vocabulary:
    """The vocabulary that follows from the merges, as CLIP counts it.

    The ids: 256 bytes, the same 256 at the end of a word, one token a merge, then the start and the end of the text.
    """
    merges = tuple(merges)
    symbols = list(byte_symbols().values())
    tokens = [*symbols, *(s + END_OF_WORD for s in symbols), *(a + b for a, b in merges), START, END]
    return Vocabulary(ids={token: n for n, token in enumerate(tokens)}, merges=merges)


@cache
def clip_vocabulary() -> Vocabulary:
    """CLIP's own 49,408 tokens, from the 48,894 merges that come with refdiff."""
    lines = gzip.decompress((weights_dir() / CLIP_MERGES).read_bytes()).decode("utf-8").split("\n")
    return from_merges((a, b) for a, _, b in (line.partition(" ") for line in lines if line))


def small_vocabulary(words: Iterable[str]) -> Vocabulary:
    """A vocabulary in CLIP's own format in which each of the words is one token, and nothing else was merged for.

    Each word is first merged by what the words before it brought; what is left of it is joined from the left by new
    merges. Those rank behind all others, so the words before it are still joined as they were.

    Raises: BadRequest for a word that the prompt's splitting would change or take apart.
    """
    ranks: dict[Merge, int] = {}
    for word in words:
        if words_of(word) != [word]:
            raise BadRequest(f"{word!r} cannot be one token: a prompt is split into {words_of(word)} here")
        pieces = apply_merges(symbols_of(word), ranks)
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = apply_merges(pieces, ranks)
    return from_merges(ranks)


def apply_merges(pieces: list[str], ranks: Mapping[Merge, int]) -> list[str]:
    """Join the neighbours of the lowest rank, everywhere and from the left, until no neighbours have a rank.

    Source: Sennrich et al. 2016, algorithm 1, applied. The prompts take the `tokenizers` library's way to the same.
    """
    while len(pieces) > 1:
        best = min(zip(pieces, pieces[1:], strict=False), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces
