"""What a tokenizer is told beside its vocabulary: special tokens, padding, length, taught words."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken

from refdiff.text.vocabulary import END, START, Vocabulary

CLIP_LENGTH = 77  # rows of CLIP's position embedding


@dataclass(frozen=True)
class SpecialToken:
    """A text that is found in the prompt before it is cut into words, and is one token.

    `normalised`: it is looked for in the cleaned prompt, so that its case does not matter. `left`, `right`: it takes
    the white space on that side with it. `alone`: it is found between word boundaries only. `special`: it is a mark,
    not a word (upstream leaves it out when it turns ids back into text).
    """

    text: str
    normalised: bool
    left: bool
    right: bool
    alone: bool
    special: bool

    def added_token(self) -> AddedToken:
        """The same for the `tokenizers` library."""
        return AddedToken(
            self.text,
            normalized=self.normalised,
            lstrip=self.left,
            rstrip=self.right,
            single_word=self.alone,
            special=self.special,
        )


@dataclass(frozen=True)
class Settings:
    """Which token plays which part, all special tokens by id, the length in ids, and the words that a model knows.

    `unknown` stands for a byte that the vocabulary lacks; CLIP's lacks none. `taught` is empty for a vocabulary that
    was not built from words.
    """

    start: str
    end: str
    unknown: str
    pad: str
    special: tuple[tuple[int, SpecialToken], ...]
    max_length: int
    taught: tuple[str, ...]


def clip_settings(vocabulary: Vocabulary, *, max_length: int, taught: tuple[str, ...]) -> Settings:
    """CLIP's own, as SD 1.x has it: padded with the end token; a typed start token is found whatever its case."""
    flags = {"left": False, "right": False, "alone": False, "special": True}
    tokens = [SpecialToken(START, normalised=True, **flags), SpecialToken(END, normalised=False, **flags)]
    special = tuple((vocabulary.ids[token.text], token) for token in tokens)
    return Settings(START, END, END, END, special=special, max_length=max_length, taught=taught)
