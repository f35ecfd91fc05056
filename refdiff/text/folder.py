"""The tokenizer folder of a checkpoint, read: vocabulary, special tokens, padding, length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refdiff.errors import BadRequest
from refdiff.text.files import read_object, read_text
from refdiff.text.settings import CLIP_LENGTH, Settings, SpecialToken
from refdiff.text.vocabulary import END, START, Merge, Vocabulary

VOCAB, MERGES, WHOLE = "vocab.json", "merges.txt", "tokenizer.json"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"

ROLES = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
_UNDERSTOOD = {"padding_side": "right", "truncation_side": "right", "split_special_tokens": False}
_UNLIMITED = 1_000_000  # upstream writes 1e30 where a tokenizer has no limit of its own


def read_folder(path: Path) -> tuple[Vocabulary, Settings]:
    """The vocabulary and the settings of a folder.

    Raises: BadRequest that names the file which is missing or is not what it should be.
    Source: transformers' CLIPTokenizer.from_pretrained, its rules of which file outranks which included.
    """
    if not path.is_dir():
        raise BadRequest(f"{path}: there is no such tokenizer folder")
    if not (path / WHOLE).is_file() or ((path / VOCAB).is_file() and (path / MERGES).is_file()):
        vocabulary, listed = _from_pair(path / VOCAB, path / MERGES), []
    else:
        vocabulary, listed = _from_whole(path / WHOLE)
    return vocabulary, _settings(path, vocabulary, listed)


def _from_pair(vocab: Path, merges: Path) -> Vocabulary:
    ids = _checked_ids(read_object(vocab), vocab)
    lines = read_text(merges).rstrip("\r\n").split("\n")
    numbered = [(n, line.removesuffix("\r")) for n, line in enumerate(lines, 1) if not line.startswith("#version")]
    pairs = [(f"line {n}", line.split(" ")) for n, line in numbered if line]
    return Vocabulary(ids, _checked_merges(pairs, ids, merges))


def _from_whole(path: Path) -> tuple[Vocabulary, list[Any]]:
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
    pairs = [(f"merge {n}", m.split(" ") if isinstance(m, str) else m) for n, m in enumerate(model["merges"], 1)]
    return Vocabulary(ids, _checked_merges(pairs, ids, path)), listed


def _checked_ids(ids: dict[str, Any], path: Path) -> dict[str, int]:
    owner: dict[int, str] = {}
    for token, number in ids.items():
        if type(number) is not int or number < 0:
            raise BadRequest(f"{path}: token {token!r} has the id {number!r}, which is no row of an embedding")
        if number in owner:
            raise BadRequest(f"{path}: tokens {owner[number]!r} and {token!r} have the same id {number}")
        owner[number] = token
    return ids


def _checked_merges(pairs: list[tuple[str, Any]], ids: dict[str, int], path: Path) -> tuple[Merge, ...]:
    merges = []
    for place, pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise BadRequest(f"{path}: {place} must be two symbols and a blank between them, but is {pair!r}")
        left, right = pair
        for symbol in (left, right, left + right):
            if symbol not in ids:
                what = f"{place} joins {left!r} and {right!r}"
                raise BadRequest(f"{path}: {what}, but the vocabulary has no token {symbol!r}")
        merges.append((left, right))
    return tuple(merges)


def _settings(path: Path, vocabulary: Vocabulary, listed: list[Any]) -> Settings:
    config = _read_if_there(path / CONFIG)
    for name, only in _UNDERSTOOD.items():
        if config.get(name, only) != only:
            raise BadRequest(f"{path / CONFIG}: {name} is {config[name]!r}; refdiff can do {only!r} only")
    roles, special = _special_tokens(path, vocabulary, config, listed)
    taught = config.get("taught_words", [])
    if not isinstance(taught, list) or not all(isinstance(word, str) for word in taught):
        raise BadRequest(f"{path / CONFIG}: taught_words must be a list of words")
    return Settings(
        start=roles["bos_token"],
        end=roles["eos_token"],
        unknown=roles["unk_token"],
        pad=roles["pad_token"],
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


def _special_tokens(
    path: Path, vocabulary: Vocabulary, config: dict[str, Any], listed: list[Any]
) -> tuple[dict[str, str], tuple[tuple[int, SpecialToken], ...]]:
    """Which token plays which part, and every special token with its id.

    A list of added tokens in tokenizer_config.json outranks special_tokens_map.json, which outranks the rest of
    tokenizer_config.json. Of two accounts of one token the first counts.
    """
    if "added_tokens_decoder" in config:
        numbered, names = _numbered(config["added_tokens_decoder"], path / CONFIG), config
    else:
        names = config | _read_if_there(path / SPECIAL)
        numbered = _numbered(_by_id(listed, path / WHOLE), path / WHOLE)
        for text, number in _read_if_there(path / ADDED).items():
            word = {"content": text, "special": text in map(_text_of, (names.get(role) for role in ROLES))}
            numbered += [(_whole_number(number, path / ADDED), _token(word, path / ADDED))]
    texts, tokens = {}, {token.text: (number, token) for number, token in reversed(numbered)}
    for role, standard in ROLES.items():
        file = path / CONFIG if "added_tokens_decoder" in config else path / SPECIAL
        token = _token(standard if names.get(role) is None else names[role], file)
        texts[role] = token.text
        if token.text not in tokens and token.text not in vocabulary.ids:
            raise BadRequest(f"{path}: the vocabulary has no token {token.text!r}, which is its {role}")
        tokens.setdefault(token.text, (vocabulary.ids.get(token.text, -1), token))
    special = tuple(sorted(tokens.values(), key=lambda pair: pair[0]))
    _check_ids_of(special, vocabulary, path)
    return texts, special


def _check_ids_of(special: tuple[tuple[int, SpecialToken], ...], vocabulary: Vocabulary, path: Path) -> None:
    """Tokens beside the vocabulary must be counted on from its end: that is how the embedding was enlarged."""
    following = len(vocabulary.ids)
    for number, token in special:
        expected = vocabulary.ids.get(token.text, following)
        following += token.text not in vocabulary.ids
        if number != expected:
            raise BadRequest(f"{path}: the added token {token.text!r} has the id {number}, but {expected} is its place")


def _by_id(listed: list[Any], path: Path) -> dict[Any, Any]:
    try:
        return {entry["id"]: entry for entry in listed}
    except (TypeError, KeyError) as error:
        raise BadRequest(f"{path}: each of added_tokens must have an id and a content") from error


def _numbered(entries: Any, path: Path) -> list[tuple[int, SpecialToken]]:
    if not isinstance(entries, dict):
        raise BadRequest(f"{path}: added_tokens_decoder must be an object in braces")
    return [(_whole_number(number, path), _token(entry, path)) for number, entry in entries.items()]


def _whole_number(value: Any, path: Path) -> int:
    if (type(value) is int and value >= 0) or (isinstance(value, str) and value.isascii() and value.isdigit()):
        return int(value)
    raise BadRequest(f"{path}: an added token has the id {value!r}, which is no row of an embedding")


def _text_of(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _token(value: Any, path: Path) -> SpecialToken:
    """A special token as the files spell it: its text alone, or an object with a content and flags."""
    entry = value if isinstance(value, dict) else {"content": value, "special": True}
    text, special = entry.get("content"), entry.get("special", False)
    flags = [entry.get(name, False) for name in ("lstrip", "rstrip", "single_word")]
    flags = [entry.get("normalized", not special), *flags, special]
    if not isinstance(text, str) or not text or not all(isinstance(flag, bool) for flag in flags):
        raise BadRequest(f"{path}: a special token must be a text, or an object with a content and flags: {value!r}")
    return SpecialToken(text, *flags)


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
