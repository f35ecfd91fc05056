"""The special tokens of a tokenizer folder: the files say them in three ways, old and new, and the newest counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from refdiff.errors import BadRequest
from refdiff.text.files import read_object
from refdiff.text.settings import SpecialToken
from refdiff.text.vocabulary import END, START

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

# What CLIP calls them where a folder does not say.
STANDARD = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
# In upstream's order; those that STANDARD lacks play no part in CLIP, but are found in the prompt if named.
_PARTS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")

Numbered = tuple[tuple[int, SpecialToken], ...]
_BESIDE = -1  # not in the vocabulary: the list of added tokens knows the id


def read_special_tokens(
    folder: Path, ids: Mapping[str, int], config: dict[str, Any], listed: list[Any]
) -> tuple[dict[str, str], Numbered]:
    """The text of the token in each part (bos_token, ...), and every special token with its id, in order of the ids.

    `ids` is the vocabulary, `config` tokenizer_config.json, `listed` the added tokens of a tokenizer.json.
    A token in a list of added tokens is as that says. Of several parts that one token plays the last tells its flags:
    SD 1.x spells <|endoftext|> out as the end, but the padding is its bare text, so its case matters.

    Raises: BadRequest that names the file.
    Source: transformers' PreTrainedTokenizerBase.from_pretrained.
    """
    names, declared = _declarations(folder, config, listed)
    listed_tokens = {token.text: (number, token) for number, token in declared}
    named_tokens, parts = {}, {}
    for part, value, file in _named(folder, names, config):
        token = _token(value, file)
        if token.text not in ids and (token.text not in listed_tokens or part == "unk_token"):
            raise BadRequest(f"{file}: the vocabulary has no token {token.text!r}, which is named as {part}")
        named_tokens[token.text] = (ids.get(token.text, _BESIDE), token)
        parts[part] = token.text
    special = tuple(sorted((named_tokens | listed_tokens).values(), key=lambda pair: pair[0]))
    _check_places(special, ids, folder)
    return parts, special


def _declarations(
    folder: Path, config: dict[str, Any], listed: list[Any]
) -> tuple[dict[str, Any], list[tuple[int, SpecialToken]]]:
    """Which file names the parts, and the tokens that are declared with an id.

    With added_tokens_decoder, tokenizer_config.json says everything; before that, special_tokens_map.json and
    added_tokens.json did.
    """
    if "added_tokens_decoder" in config:
        return config, _numbered(config["added_tokens_decoder"], folder / CONFIG)
    names = config | _object_if_there(folder / SPECIAL)
    marks = {_text_of(value) for _, value, _ in _named(folder, names, config)}
    added = _object_if_there(folder / ADDED)
    words = [
        (_whole_number(number, folder / ADDED), _token({"content": text, "special": text in marks}, folder / ADDED))
        for text, number in added.items()
    ]
    return names, [*_numbered(_by_id(listed, folder), folder / "tokenizer.json"), *words]


def _named(folder: Path, names: dict[str, Any], config: dict[str, Any]) -> Iterator[tuple[str, Any, Path]]:
    """(part, how its token is spelt, the file that says so)."""
    for part in (*_PARTS, *_LISTS):
        value = names.get(part) or STANDARD.get(part, [])
        file = folder / (CONFIG if names.get(part) == config.get(part) else SPECIAL)
        for one in value if isinstance(value, list) else [value]:
            yield part, one, file


def _check_places(special: Numbered, ids: Mapping[str, int], folder: Path) -> None:
    """Tokens beside the vocabulary must be counted on from its end: that is how the embedding was enlarged."""
    following = len(ids)
    for number, token in special:
        place = ids.get(token.text, following)
        following += token.text not in ids
        if number != place:
            raise BadRequest(f"{folder}: the added token {token.text!r} has the id {number}, but its place is {place}")


def _by_id(listed: list[Any], folder: Path) -> dict[Any, Any]:
    try:
        return {entry["id"]: entry for entry in listed}
    except (TypeError, KeyError) as error:
        raise BadRequest(f"{folder / 'tokenizer.json'}: each of added_tokens must have an id and a content") from error


def _numbered(entries: Any, path: Path) -> list[tuple[int, SpecialToken]]:
    if not isinstance(entries, dict):
        raise BadRequest(f"{path}: added_tokens_decoder must be an object in braces")
    return [(_whole_number(number, path), _token(entry, path)) for number, entry in entries.items()]


def _whole_number(value: Any, path: Path) -> int:
    if (type(value) is int and value >= 0) or (isinstance(value, str) and value.isascii() and value.isdigit()):
        return int(value)
    raise BadRequest(f"{path}: an added token has the id {value!r}, which is no row of an embedding")


def _text_of(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _token(value: Any, path: Path) -> SpecialToken:
    """A special token as the files spell it: its text alone, or an object with a content and flags."""
    entry = value if isinstance(value, dict) else {"content": value, "special": True}
    text, special = _text_of(entry), entry.get("special", False)
    flags = [entry.get(name, False) for name in ("lstrip", "rstrip", "single_word")]
    flags = [entry.get("normalized", not special), *flags, special]
    if not text or not all(isinstance(flag, bool) for flag in flags):
        raise BadRequest(f"{path}: a special token must be a text, or an object with a content and flags: {value!r}")
    return SpecialToken(text, *flags)


def _object_if_there(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
