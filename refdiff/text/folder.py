"""The tokenizer folder of a checkpoint, read: vocabulary, special tokens, padding, length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refdiff.errors import BadRequest
from refdiff.text.byte_symbols import END_OF_WORD, byte_symbols
from refdiff.text.files import read_object, read_text
from refdiff.text.settings import CLIP_LENGTH, Settings
from refdiff.text.special_tokens import CONFIG, read_special_tokens
from refdiff.text.vocabulary import Merge, Vocabulary

VOCAB, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
_UNDERSTOOD = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}
_ID_LIMIT = 1 << 31
_UNLIMITED = 1_000_000  # upstream writes 1e30 where a tokenizer has no limit of its own


def read_folder(path: Path) -> tuple[Vocabulary, Settings]:
    """The vocabulary and the settings of a folder.

    Raises: BadRequest that names the file which is missing or is not what it should be.
    Source: transformers' CLIPTokenizer.from_pretrained, its rules of which file outranks which included.
    """
    if not path.is_dir():
        raise BadRequest(f"{path}: there is no such tokenizer folder")
    in_pair = (path / VOCAB).is_file() and (path / MERGES).is_file()
    if (path / WHOLE).is_file() and not in_pair:
        file = path / WHOLE
        vocabulary, listed = _from_whole(file)
    else:
        file = path / MERGES
        vocabulary, listed = _from_pair(path / VOCAB, file), []
    settings = _settings(path, vocabulary, listed)
    _check_complete(vocabulary, settings, file)
    return vocabulary, settings


def _from_pair(vocab: Path, merges: Path) -> Vocabulary:
    ids = _checked_ids(read_object(vocab), vocab)
    lines = read_text(merges).replace("\r\n", "\n").removesuffix("\n").split("\n")
    header = sum(line.startswith("#version") for line in lines[:1])
    pairs = [tuple(line.split(" ")) for line in lines[header:]]
    return Vocabulary(ids, _checked_merges(pairs, ids, merges, name="line", first=header + 1))


def _from_whole(path: Path) -> tuple[Vocabulary, list[dict[str, Any]]]:
    """The vocabulary in a tokenizer.json, and the tokens that it lists as added."""
    whole = read_object(path)
    model, listed = whole.get("model"), whole.get("added_tokens", [])
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("end_of_word_suffix") != "</w>":
        raise BadRequest(f"{path}: its model is not CLIP's byte-pair encoding with the end-of-word mark </w>")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise BadRequest(f"{path}: its model must have a vocab in braces and merges in brackets")
    if not isinstance(listed, list):
        raise BadRequest(f"{path}: added_tokens must be a list")
    ids = _checked_ids(model["vocab"], path)
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in model["merges"]]
    for place, pair in enumerate(pairs, 1):
        if not isinstance(pair, list | tuple) or not all(isinstance(symbol, str) for symbol in pair):
            raise BadRequest(f"{path}: merge {place} must be two symbols: {pair!r}")
    merges = _checked_merges([tuple(pair) for pair in pairs], ids, path, name="merge", first=1)
    return Vocabulary(ids, merges), listed


def _checked_ids(ids: dict[str, Any], path: Path) -> dict[str, int]:
    owner: dict[int, str] = {}
    for token, number in ids.items():
        if type(number) is not int or not 0 <= number < _ID_LIMIT:
            raise BadRequest(f"{path}: token {token!r} has the id {number!r}, which is no row of an embedding")
        if number in owner:
            raise BadRequest(f"{path}: tokens {owner[number]!r} and {token!r} have the same id {number}")
        owner[number] = token
    return ids


def _checked_merges(pairs: list[Any], ids: dict[str, int], file: Path, *, name: str, first: int) -> tuple[Merge, ...]:
    """The merges, if each is two tokens that make a third; `name` and `first` are how the file counts them."""
    for place, pair in enumerate(pairs, first):
        if len(pair) != 2 or "" in pair:
            raise BadRequest(f"{file}: {name} {place} must be two symbols and a blank between them: {' '.join(pair)!r}")
        left, right = pair
        if left not in ids or right not in ids or left + right not in ids:
            missing = next(symbol for symbol in (left, right, left + right) if symbol not in ids)
            what = f"{name} {place} joins {left!r} and {right!r}"
            raise BadRequest(f"{file}: {what}, but the vocabulary has no token {missing!r}")
    return tuple(pairs)


def _check_complete(vocabulary: Vocabulary, settings: Settings, path: Path) -> None:
    """Refuse a list of merges that was cut short: every prompt would still get ids, but wrong ones.

    Only where all the bytes are there, as in every CLIP vocabulary; the toy ones of upstream's tests are looser.
    """
    bytes_alone = set(byte_symbols().values())
    symbols = bytes_alone | {symbol + END_OF_WORD for symbol in bytes_alone}
    if symbols <= vocabulary.ids.keys():
        made = {left + right for left, right in vocabulary.merges} | {token.text for _, token in settings.special}
        unmade = sorted(vocabulary.ids.keys() - symbols - made, key=lambda token: vocabulary.ids[token])
        if unmade:
            raise BadRequest(f"{path}: no merge makes the token {unmade[0]!r}: copy the file again, it may be cut short")


def _settings(path: Path, vocabulary: Vocabulary, listed: list[dict[str, Any]]) -> Settings:
    config = read_object(path / CONFIG) if (path / CONFIG).is_file() else {}
    for name, only in _UNDERSTOOD.items():
        if config.get(name, only) != only:
            raise BadRequest(f"{path / CONFIG}: {name} is {config[name]!r}; refdiff can do {only!r} only")
    parts, special = read_special_tokens(path, vocabulary.ids, config, listed)
    taught = config.get("taught_words", [])
    if not isinstance(taught, list) or not all(isinstance(word, str) for word in taught):
        raise BadRequest(f"{path / CONFIG}: taught_words must be a list of words")
    return Settings(
        start=parts["bos_token"],
        end=parts["eos_token"],
        unknown=parts["unk_token"],
        pad=parts["pad_token"],
        special=special,
        max_length=_max_length(config, path / CONFIG),
        taught=tuple(taught),
    )


def _max_length(config: dict[str, Any], path: Path) -> int:
    """How many ids a prompt becomes; CLIP's 77 where the folder sets no limit."""
    length = config.get("model_max_length", config.get("max_len"))
    if length is None or (isinstance(length, int | float) and length > _UNLIMITED):
        return CLIP_LENGTH
    if type(length) is not int or length < 3:
        raise BadRequest(f"{path}: model_max_length is {length!r}; it must be a whole number, 3 or more (CLIP: 77)")
    return length
