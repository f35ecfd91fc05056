"""Our ids against those of transformers' CLIPTokenizer, from the same folder, in every way that a folder is spelt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from refdiff.text import Tokenizer, build_small

FIXTURE = Path(__file__).parent.parent / "text" / "tricky_prompts.json"
PROMPTS = [row["prompt"] for row in json.loads(FIXTURE.read_text(encoding="ascii"))["prompts"]]
WORDS = "a large red circle on yellow background , 's the left right of there here ! caf\u00e9".split()
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
START, END = "<|startoftext|>", "<|endoftext|>"


def write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def as_written(folder: Path) -> None:
    """The folder as write_folder leaves it."""


def as_sd1(folder: Path) -> None:
    """transformers 4.22: AddedTokens spelt out in both files, no list of added tokens."""
    marks = {"bos_token": START, "eos_token": END, "unk_token": END}
    spelt = {part: {"__type": "AddedToken", "content": text, **FLAGS} for part, text in marks.items()}
    length = {"model_max_length": 77, "add_prefix_space": False, "do_lower_case": True, "pad_token": END}
    write(folder / "tokenizer_config.json", spelt | length | {"tokenizer_class": "CLIPTokenizer", "errors": "replace"})
    plain = {part: {"content": text, **FLAGS} for part, text in marks.items()}
    write(folder / "special_tokens_map.json", plain | {"pad_token": END})


def as_sd2(folder: Path) -> None:
    """As SD 1, but padded with "!" by special_tokens_map.json, against tokenizer_config.json."""
    as_sd1(folder)
    marks = json.loads((folder / "special_tokens_map.json").read_text())
    write(folder / "special_tokens_map.json", marks | {"pad_token": "!"})


def as_sdxl_2(folder: Path) -> None:
    """The second tokenizer of SDXL: a list of added tokens with "!" in it."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    listed = config["added_tokens_decoder"]
    listed = listed | {"0": {"content": "!", "special": True, **FLAGS, "normalized": False}}
    write(folder / "tokenizer_config.json", config | {"added_tokens_decoder": listed, "pad_token": "!"})


def as_plain_names(folder: Path) -> None:
    """Nothing but names."""
    write(folder / "tokenizer_config.json", {"model_max_length": 77})
    write(folder / "special_tokens_map.json", {"bos_token": START, "eos_token": END, "pad_token": END})


def with_learned_words(folder: Path) -> None:
    """Textual inversion, old: three added tokens, one of them found inside words, one with a blank in it."""
    as_sd1(folder)
    size = len(json.loads((folder / "vocab.json").read_text("utf-8")))
    write(folder / "added_tokens.json", {"<my-cat>": size, "cat": size + 1, "my cat": size + 2})


def with_greedy_marks(folder: Path) -> None:
    """Special tokens that swallow blanks, and one that must stand alone."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    size = len(json.loads((folder / "vocab.json").read_text("utf-8")))
    greedy = {"content": "red", "special": False, "lstrip": True, "rstrip": True, "normalized": True}
    alone = {"content": "on", "special": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = {str(size): greedy | {"single_word": False}, str(size + 1): alone | {"single_word": True}}
    listed = config["added_tokens_decoder"] | added
    write(folder / "tokenizer_config.json", config | {"added_tokens_decoder": listed})


def in_one_file(folder: Path) -> None:
    """As transformers 5 itself saves it."""
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file()
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


SPELLINGS = [as_written, as_sd1, as_sd2, as_sdxl_2, as_plain_names, with_learned_words, with_greedy_marks, in_one_file]
MORE = [
    "My \r\n cat and my cats",
    "a <my-cat> and a Cat: cats <MY-CAT>",
    "a  red  on onto ON on! RED",
    "!!a!",
    "\t<|endoftext|>  !  on",
]


def pair(folder: Path) -> tuple[Tokenizer, CLIPTokenizer]:
    return Tokenizer.from_folder(folder), CLIPTokenizer.from_pretrained(folder)


def check(ours: Tokenizer, upstream: CLIPTokenizer, prompts: list[str]) -> None:
    """One list of ids a prompt, of the tokenizers' own length, padding included."""
    length = ours.max_length
    expected = upstream(prompts, padding="max_length", truncation=True, max_length=length).input_ids
    for prompt, ids in zip(prompts, expected, strict=True):
        assert list(ours.encode(prompt).ids) == ids, prompt


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    Tokenizer.clip().write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def clip_pair(clip_folder: Path) -> tuple[Tokenizer, CLIPTokenizer]:
    return pair(clip_folder)


@pytest.fixture(scope="module")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, CLIPTokenizer]:
    folder = tmp_path_factory.mktemp("small")
    build_small(WORDS, max_length=32).write_folder(folder)
    return pair(folder)


def test_the_full_vocabulary(clip_pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    ours, upstream = clip_pair
    assert (len(upstream), upstream.model_max_length, upstream.pad_token_id) == (49408, 77, ours.pad_id)
    check(ours, upstream, PROMPTS)


def test_a_small_vocabulary(small_pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    ours, upstream = small_pair
    assert (len(upstream), upstream.model_max_length) == (ours.vocab_size, 32)
    assert (upstream.bos_token_id, upstream.eos_token_id) == (ours.start_id, ours.end_id)
    check(ours, upstream, PROMPTS)


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_folder_however_it_is_spelt(tmp_path: Path, spell: Callable[[Path], None]) -> None:
    build_small(WORDS).write_folder(tmp_path)
    spell(tmp_path)
    ours, upstream = pair(tmp_path)
    assert (ours.start_id, ours.end_id) == (upstream.bos_token_id, upstream.eos_token_id)
    assert (ours.pad_id, ours.vocab_size, ours.max_length) == (upstream.pad_token_id, len(upstream), 77)
    check(ours, upstream, PROMPTS + MORE)


@pytest.mark.parametrize("spell", SPELLINGS)
def test_a_folder_written_again_means_the_same(tmp_path: Path, spell: Callable[[Path], None]) -> None:
    build_small(WORDS).write_folder(tmp_path / "first")
    spell(tmp_path / "first")
    Tokenizer.from_folder(tmp_path / "first").write_folder(tmp_path / "second")
    before, after = (CLIPTokenizer.from_pretrained(tmp_path / name) for name in ("first", "second"))
    ids = [upstream(PROMPTS + MORE, truncation=True, max_length=77).input_ids for upstream in (before, after)]
    assert ids[0] == ids[1]
    assert (before.pad_token_id, len(before)) == (after.pad_token_id, len(after))


def test_the_spellings_are_told_apart_by_the_prompts(tmp_path: Path) -> None:
    """Otherwise the two tests above would prove little."""
    ids = set()
    for spell in SPELLINGS:
        build_small(WORDS).write_folder(tmp_path / spell.__name__)
        spell(tmp_path / spell.__name__)
        ours = Tokenizer.from_folder(tmp_path / spell.__name__)
        ids.add(tuple(ours.encode(prompt).ids for prompt in PROMPTS + MORE))
    # as_written, as_sd1 and in_one_file mean the same.
    assert len(ids) == len(SPELLINGS) - 2


# Any text at all, and text in which the parts that matter to a tokenizer stand next to each other.
PARTS = [
    *"aA1!' \t\n\r",
    "'s",
    "'RE",
    "<|endoftext|>",
    "<|StartOfText|>",
    "<|",
    "|>",
    "\u0301",
    "\u00e9",
    "\u1112\u1161",
]
PARTS += [
    "\u11ab",
    "\u200b",
    "\u200d",
    "\ufe0f",
    "\xa0",
    "\x85",
    "\x1c",
    "\u0130",
    "\u03a3",
    "\u6771",
    "\U0001f600",
    "\x00",
]
TEXTS = st.text(max_size=120) | st.lists(st.sampled_from(PARTS) | st.characters(), max_size=100).map("".join)


@given(TEXTS)
def test_any_text(clip_pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, upstream = clip_pair
    check(ours, upstream, [text])


@given(TEXTS)
def test_any_text_with_a_small_vocabulary(small_pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, upstream = small_pair
    check(ours, upstream, [text])
