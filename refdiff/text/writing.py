"""A tokenizer folder as transformers' CLIPTokenizer reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from refdiff.text.files import write_files
from refdiff.text.folder import MERGES, VOCAB
from refdiff.text.settings import Settings, SpecialToken
from refdiff.text.special_tokens import CONFIG, SPECIAL, STANDARD
from refdiff.text.vocabulary import Vocabulary


def write_folder(path: Path, vocabulary: Vocabulary, settings: Settings) -> None:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    Raises: BadRequest where they cannot be written.
    """
    merges = ["#version: 0.2", *(f"{left} {right}" for left, right in vocabulary.merges)]
    config = _config(settings)
    texts = {
        VOCAB: json.dumps(dict(vocabulary.ids), ensure_ascii=False) + "\n",
        MERGES: "\n".join(merges) + "\n",
        CONFIG: _json(config),
        SPECIAL: _json({part: config[part] for part in STANDARD}),
    }
    write_files(path, texts)


def _config(settings: Settings) -> dict[str, Any]:
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): _entry(token) for number, token in settings.special},
        "bos_token": settings.start,
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "eos_token": settings.end,
        "errors": "replace",
        "model_max_length": settings.max_length,
        "pad_token": settings.pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": settings.unknown,
    }
    # Our own entry, for warnings; upstream keeps it and makes nothing of it.
    return config | ({"taught_words": list(settings.taught)} if settings.taught else {})


def _entry(token: SpecialToken) -> dict[str, Any]:
    return {
        "content": token.text,
        "lstrip": token.left,
        "normalized": token.normalised,
        "rstrip": token.right,
        "single_word": token.alone,
        "special": token.special,
    }


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
