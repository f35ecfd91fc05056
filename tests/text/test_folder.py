"""Tokenizer folders: written and read again, spelt as old and new checkpoints spell them, and broken in every way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refdiff.errors import BadRequest
from refdiff.text import Tokenizer, build_small

SMALL = build_small("a large red circle on yellow background".split(), max_length=32)
START, END = SMALL.start_id, SMALL.end_id
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SMALL.write_folder(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def change(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; None takes one out."""
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    data = {name: value for name, value in (data | changes).items() if value is not None}
    path.write_text(json.dumps(data), encoding="utf-8")


def as_one_file(folder: Path) -> None:
    """The same tokenizer as a tokenizer.json and a short tokenizer_config.json."""
    model = {
        "type": "BPE",
        "end_of_word_suffix": "</w>",
        "vocab": json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
        "merges": (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:],
    }
    added = [
        {"id": START, "content": "<|startoftext|>", "special": True, **FLAGS},
        {"id": END, "content": "<|endoftext|>", "special": True, **FLAGS, "normalized": False},
    ]
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}), encoding="utf-8")
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}', encoding="utf-8")


def test_a_small_tokenizer_comes_back_as_it_was(folder: Path) -> None:
    again = Tokenizer.from_folder(folder)
    assert again.vocabulary == SMALL.vocabulary
    assert again.settings == SMALL.settings
    assert again.encode("A red dog") == SMALL.encode("A red dog")
    assert again.untaught("a red dog") == ["dog"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_clip_comes_back_as_it_was(tmp_path: Path) -> None:
    Tokenizer.clip().write_folder(tmp_path)
    again = Tokenizer.from_folder(str(tmp_path))
    assert again.vocabulary == Tokenizer.clip().vocabulary
    assert again.settings == Tokenizer.clip().settings


def test_merges_with_the_line_ends_of_windows(folder: Path) -> None:
    path = folder / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.from_folder(folder).vocabulary == SMALL.vocabulary


def test_a_folder_without_settings_is_clip(folder: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    plain = Tokenizer.from_folder(folder)
    assert (plain.max_length, plain.pad_id, plain.known_words) == (77, END, frozenset())
    # Not found in other letters now, since no file says that the special tokens are looked for in the cleaned prompt.
    assert plain.encode("<|EndOfText|>").ids[1] != END


def test_padding_of_sd2(folder: Path) -> None:
    """Its special_tokens_map.json says "!", against its tokenizer_config.json, which has no list of added tokens."""
    change(folder / "tokenizer_config.json", added_tokens_decoder=None, pad_token="<|endoftext|>")
    change(folder / "special_tokens_map.json", bos_token={"content": "<|startoftext|>", **FLAGS}, pad_token="!")
    sd2 = Tokenizer.from_folder(folder)
    assert sd2.pad_id == 0
    assert sd2.encode("a red!").ids == (START, 320, SMALL.vocabulary.ids["red</w>"], 0, END, *[0] * 27)


def test_added_tokens_outrank_the_map(folder: Path) -> None:
    """With a list of added tokens in tokenizer_config.json, upstream does not look at special_tokens_map.json."""
    change(folder / "special_tokens_map.json", pad_token="!")
    assert Tokenizer.from_folder(folder).pad_id == END


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_a_token_that_was_added_to_the_vocabulary(folder: Path, spelling: str) -> None:
    """As textual inversion adds them."""
    if spelling == "old":
        change(folder / "tokenizer_config.json", added_tokens_decoder=None)
        change(folder / "added_tokens.json", **{"<my-cat>": END + 1})
    else:
        listed = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        listed[str(END + 1)] = {"content": "<my-cat>", "special": False, **FLAGS}
        change(folder / "tokenizer_config.json", added_tokens_decoder=listed)
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer.encode("a <My-Cat> on red").ids[2] == END + 1
    assert tokenizer.vocab_size == END + 2
    tokenizer.write_folder(folder)
    assert Tokenizer.from_folder(folder).settings == tokenizer.settings


def test_a_tokenizer_in_one_file(folder: Path) -> None:
    as_one_file(folder)
    one = Tokenizer.from_folder(folder)
    assert one.vocabulary == SMALL.vocabulary
    assert one.settings.special == SMALL.settings.special
    assert one.encode("A red dog").ids == SMALL.encode("A red dog").ids


@pytest.mark.parametrize("length, expected", [(24, 24), (None, 77), (1e30, 77), (10**30, 77)])
def test_the_length_comes_from_the_folder(folder: Path, length: Any, expected: int) -> None:
    change(folder / "tokenizer_config.json", model_max_length=length)
    assert Tokenizer.from_folder(folder).max_length == expected


def edit(name: str, how: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(how((folder / name).read_text("utf-8")), "utf-8") and None


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "tokenizer_config.json", **changes)


def vocab(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "vocab.json", **changes)


BROKEN = {
    "no vocab": (lambda f: (f / "vocab.json").unlink(), "vocab.json: is missing"),
    "no merges": (lambda f: (f / "merges.txt").unlink(), "merges.txt: is missing"),
    "vocab a folder": (
        lambda f: ((f / "vocab.json").unlink(), (f / "vocab.json").mkdir()),
        "vocab.json: cannot be read",
    ),
    "vocab not JSON": (edit("vocab.json", lambda t: t[:-9]), "vocab.json: is not valid JSON"),
    "vocab a list": (edit("vocab.json", lambda t: "[]"), "vocab.json: must hold a JSON object"),
    "vocab nested": (edit("vocab.json", lambda t: "[" * 100_000), "vocab.json: is not valid JSON"),
    "vocab empty": (edit("vocab.json", lambda t: "{}"), "merges.txt: line 2 joins .* no token"),
    "vocab not UTF-8": (lambda f: (f / "vocab.json").write_bytes(b'{"\xff": 1}'), "vocab.json: byte 2 is not UTF-8"),
    "half a character": (edit("vocab.json", lambda t: '{"\\ud83d": 1}'), "vocab.json: is not valid JSON"),
    "id a text": (vocab(red="1"), "vocab.json: token 'red' has the id '1'"),
    "id a truth": (vocab(red=True), "vocab.json: token 'red' has the id True"),
    "id below 0": (vocab(red=-1), "vocab.json: token 'red' has the id -1"),
    "id too large": (vocab(red=2**40), "vocab.json: token 'red' has the id"),
    "id twice": (vocab(xyz=3), r"vocab.json: tokens '\$' and 'xyz' have the same id 3"),
    "no symbol": (vocab(**{"e</w>": None}), r"merges.txt: line \d+ joins 'larg' and 'e</w>', .* no token 'e</w>'"),
    "no result": (vocab(**{"red</w>": None}), r"merges.txt: line \d+ joins 're' and 'd</w>', .* no token 'red</w>'"),
    "merge of one": (
        edit("merges.txt", lambda t: t.replace("re d</w>", "red</w>")),
        r"merges.txt: line \d+ must be two",
    ),
    "merge of three": (edit("merges.txt", lambda t: t.replace("re d", "r e d")), r"merges.txt: line \d+ must be two"),
    "blank line": (edit("merges.txt", lambda t: t.replace("re d", "\nre d")), r"merges.txt: line \d+ must be two"),
    "merges empty": (edit("merges.txt", lambda t: ""), "merges.txt: line 1 must be two"),
    "merges cut short": (
        edit("merges.txt", lambda t: t.split("re d</w>")[0]),
        "merges.txt: no merge makes the token 'red</w>'",
    ),
    "no end token": (
        vocab(**{"<|endoftext|>": None}),
        "the added token '<|endoftext|>' has the id|vocabulary has no token",
    ),
    "config not JSON": (edit("tokenizer_config.json", lambda t: t + "}"), "tokenizer_config.json: is not valid JSON"),
    "map not JSON": (
        lambda f: (config(added_tokens_decoder=None)(f), edit("special_tokens_map.json", lambda t: "x")(f)),
        "special_tokens_map.json: is not valid JSON",
    ),
    "unknown padding": (
        config(pad_token="<pad>"),
        "tokenizer_config.json: .* no token '<pad>', which is named as pad_token",
    ),
    "padding a number": (config(pad_token=7), "tokenizer_config.json: a special token must be a text"),
    "start without text": (config(bos_token={"lstrip": False}), "tokenizer_config.json: a special token must be"),
    "flag a word": (
        config(bos_token={"content": "a", "lstrip": "no"}),
        "tokenizer_config.json: a special token must be",
    ),
    "padding on the left": (config(padding_side="left"), "tokenizer_config.json: padding_side is 'left'"),
    "cut on the left": (config(truncation_side="left"), "tokenizer_config.json: truncation_side is 'left'"),
    "length a text": (config(model_max_length="77"), "tokenizer_config.json: model_max_length is '77'"),
    "length of 2": (config(model_max_length=2), "tokenizer_config.json: model_max_length is 2"),
    "length a truth": (config(model_max_length=True), "tokenizer_config.json: model_max_length is True"),
    "taught a text": (config(taught_words="red"), "tokenizer_config.json: taught_words must be a list"),
    "added a list": (config(added_tokens_decoder=["x"]), "tokenizer_config.json: added_tokens_decoder must be"),
    "added id a word": (
        config(added_tokens_decoder={"x": {"content": "a"}}),
        "tokenizer_config.json: an added token has",
    ),
    "added out of place": (
        config(added_tokens_decoder={"9999": {"content": "<cat>", "special": True}}),
        "the added token '<cat>' has the id 9999, but its place is",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_by_the_name_of_the_file(folder: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(folder)
    with pytest.raises(BadRequest, match=message) as caught:
        Tokenizer.from_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


ONE_FILE = {
    "another model": ({"model": {"type": "WordPiece", "vocab": {}}}, "is not CLIP's byte-pair encoding"),
    "GPT-2": ({"model": {"type": "BPE", "end_of_word_suffix": "", "vocab": {}, "merges": []}}, "is not CLIP's"),
    "no model": ({}, "is not CLIP's byte-pair encoding"),
    "no merges": ({"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {}}}, "must have a vocab"),
    "merge of numbers": (
        {"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 0}, "merges": [[1, 2]]}},
        "merge 1 must be two symbols",
    ),
    "added a text": (
        {"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {}, "merges": []}, "added_tokens": "x"},
        "added_tokens must be a list",
    ),
    "added without id": (
        {"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {}, "merges": []}, "added_tokens": [{}]},
        "each of added_tokens must have an id",
    ),
}


@pytest.mark.parametrize("case", ONE_FILE)
def test_a_broken_single_file_is_refused(tmp_path: Path, case: str) -> None:
    data, message = ONE_FILE[case]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BadRequest, match=f"tokenizer.json: .*{message}"):
        Tokenizer.from_folder(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="there is no such tokenizer folder"):
        Tokenizer.from_folder(tmp_path / "nowhere")


def test_writing_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(BadRequest, match="taken: the tokenizer cannot be written"):
        SMALL.write_folder(tmp_path / "taken")


def test_a_failed_write_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if "tokenizer_config" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(BadRequest, match="No space left on device"):
        build_small(["blue"]).write_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
