"""Any text as a row of printable symbols, one a byte: the alphabet that CLIP's merges are written in."""

from __future__ import annotations

END_OF_WORD = "</w>"

# The bytes that Latin-1 prints as one visible character stand for themselves (0xAD is an invisible hyphen).
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def byte_symbols() -> dict[int, str]:
    """The symbol of each byte, in the order in which CLIP's vocabulary counts them.

    A visible byte is its own symbol; the 68 others (controls, spaces, 0xAD) take the characters from U+0100 on, so
    that no symbol is white space and a merge can be written as two words on a line.

    Source: OpenAI's GPT-2 and CLIP, `bytes_to_unicode`.
    """
    hidden = [byte for byte in range(256) if byte not in _VISIBLE]
    return {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


def symbols_of(word: str) -> list[str]:
    """A word as one symbol a byte of its UTF-8, the last with CLIP's end-of-word mark.

    Traps: tok-bpe-no-eow, tok-merge-unit.
    """
    symbol = byte_symbols()
    row = [symbol[byte] for byte in word.encode("utf-8")]
    return [*row[:-1], row[-1] + END_OF_WORD]
