"""From a prompt to the ids that the text encoder takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tokenizers
from tokenizers import models

from refdiff.errors import BadRequest
from refdiff.text.byte_symbols import END_OF_WORD
from refdiff.text.folder import read_folder
from refdiff.text.settings import CLIP_LENGTH, Settings, clip_settings
from refdiff.text.splitting import normaliser, splitter, words_of
from refdiff.text.vocabulary import Vocabulary, clip_vocabulary, small_vocabulary
from refdiff.text.writing import write_folder


@dataclass(frozen=True)
class Encoding:
    """A prompt as ids.

    ids: start, the prompt's tokens, end, padding: as many as the tokenizer's `max_length`.
    cut: the end of the prompt that found no room, as it was typed; "" where all of it did.
    words: the prompt as it was cleaned and cut into words, the part without room included.
    """

    ids: tuple[int, ...]
    cut: str
    words: tuple[str, ...]


class Tokenizer:
    """CLIP's byte-pair tokenizer over one vocabulary; nothing in it changes after it is made."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings):
        self.vocabulary, self.settings = vocabulary, settings
        self._backend = _backend(vocabulary, settings)
        ids = {**vocabulary.ids, **{token.text: number for number, token in settings.special}}
        self.start_id, self.end_id, self.pad_id = ids[settings.start], ids[settings.end], ids[settings.pad]
        self.vocab_size = max(ids.values()) + 1  # rows of the token embedding: 49,408 for CLIP

    @classmethod
    def clip(cls) -> Tokenizer:
        """CLIP's own tokenizer of 49,408 tokens, which every Stable Diffusion 1.x checkpoint uses."""
        return _clip()

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """The tokenizer that a checkpoint brings.

        Reads vocab.json and merges.txt (or tokenizer.json where those are missing), tokenizer_config.json,
        special_tokens_map.json and added_tokens.json.

        Raises: BadRequest that names the file which is missing or is not what it should be.
        Traps: tok-pad-eos-vs-0 (SD 2 pads with "!").
        """
        return cls(*read_folder(Path(path)))

    def write_folder(self, path: str | Path) -> None:
        """Write the folder that `from_folder` and transformers' CLIPTokenizer read.

        Raises: BadRequest where it cannot be written.
        """
        write_folder(Path(path), self.vocabulary, self.settings)

    @property
    def max_length(self) -> int:
        """How many ids every prompt becomes: 77 for CLIP."""
        return self.settings.max_length

    @property
    def known_words(self) -> frozenset[str]:
        """The words that the model was taught; empty for a vocabulary that was not built from words."""
        return frozenset(self.settings.taught)

    def encode(self, text: str) -> Encoding:
        """A prompt as ids, start and end included, cut and padded to `max_length`.

        Shapes: text of any length -> [max_length] ids.
        Raises: BadRequest for a text that has no UTF-8 form.
        Source: transformers' CLIPTokenizer with padding="max_length", truncation=True.
        Traps: tok-trunc, tok-pad-eos-vs-0.
        """
        if not _is_text(text):
            raise BadRequest("the prompt holds half of a character (a lone surrogate): type it again as UTF-8")
        tokens = self._backend.encode(text, add_special_tokens=False)
        room = self.max_length - 2
        ids = [self.start_id, *tokens.ids[:room], self.end_id]
        padding = [self.pad_id] * (self.max_length - len(ids))
        cut = text[tokens.offsets[room][0] :].strip(" \t\r\n") if len(tokens) > room else ""
        return Encoding(ids=(*ids, *padding), cut=cut, words=tuple(words_of(text)))

    def untaught(self, text: str) -> list[str]:
        """The words of a prompt that the model was never taught, once each; none where `known_words` is empty."""
        if not self.settings.taught:
            return []
        return [word for word in dict.fromkeys(words_of(text)) if word not in self.known_words]


def build_small(words: Iterable[str], *, max_length: int = CLIP_LENGTH) -> Tokenizer:
    """A tokenizer in CLIP's own format in which each of the words is one token, and which knows no others.

    Raises: BadRequest for a word that a prompt's splitting would change or take apart ("Red", "it's", "10").
    """
    taught = tuple(dict.fromkeys(words))
    vocabulary = small_vocabulary(taught)
    return Tokenizer(vocabulary, clip_settings(vocabulary, max_length=max_length, taught=taught))


@cache
def _clip() -> Tokenizer:
    vocabulary = clip_vocabulary()
    return Tokenizer(vocabulary, clip_settings(vocabulary, max_length=CLIP_LENGTH, taught=()))


def _backend(vocabulary: Vocabulary, settings: Settings) -> tokenizers.Tokenizer:
    """The `tokenizers` library set up as CLIP: clean, find special tokens, cut into words, merge."""
    model = models.BPE(
        vocab=dict(vocabulary.ids),
        merges=list(vocabulary.merges),
        unk_token=settings.unknown,
        end_of_word_suffix=END_OF_WORD,
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normaliser()
    backend.pre_tokenizer = splitter()
    backend.add_tokens([token.added_token() for _, token in settings.special])
    return backend


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
