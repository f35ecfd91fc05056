"""From the prompt as typed to words: CLIP's cleaning and its regular expression, before any vocabulary."""

from __future__ import annotations

from functools import cache

from tokenizers import Regex, normalizers, pre_tokenizers

# A contraction's tail, a run of letters, ONE digit, or a run of anything else that is not white space.
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@cache
def normaliser() -> normalizers.Normalizer:
    """Compose accents (NFC), make each run of white space one blank, lower the case.

    Source: transformers' CLIPTokenizer. OpenAI's original ran ftfy and undid HTML entities first: see refdiff.text.
    Traps: tok-pretok.
    """
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    return normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])


@cache
def splitter() -> pre_tokenizers.PreTokenizer:
    """Cut the cleaned text into words and write each as byte symbols.

    The byte-level step splits once more by GPT-2's expression, as it does upstream. That is seen only in the name of
    a special token whose case was changed ("<|EndOfText|>"), which becomes three words.
    """
    words = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def words_of(text: str) -> list[str]:
    """The words of a prompt, cleaned: `words_of("A  Cat's 10") == ["a", "cat", "'s", "1", "0"]`."""
    clean = normaliser().normalize_str(text)
    return [clean[start:end] for _, (start, end) in splitter().pre_tokenize_str(clean)]
