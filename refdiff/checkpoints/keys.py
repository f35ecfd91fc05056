"""The spellings of parameter names, as tables between a file's keys and the canonical ones.

Canonical are the names that diffusers writes today and, for the text encoder, those that begin with `text_model.`.
Each other spelling is a bijection of the keys that it touches; `aliases` turns it into a table for one declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spelling:
    """Another way to write some keys; `write` maps a canonical key to it, and other keys to themselves."""

    name: str
    write: Callable[[str], str]


def _without_text_model(key: str) -> str:
    return key.removeprefix("text_model.")


OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _old_attention(key: str) -> str:
    for new, old in OLD_ATTENTION.items():
        for leaf in ("weight", "bias"):
            if key.endswith(f".{new}.{leaf}"):
                return key.removesuffix(f"{new}.{leaf}") + f"{old}.{leaf}"
    return key


SPELLINGS: Mapping[str, tuple[Spelling, ...]] = {
    # transformers 5 saves its text encoder without the prefix that all earlier releases wrote
    "CLIPTextModel": (Spelling("without the prefix text_model.", _without_text_model),),
    # diffusers before 0.18, and the files that were saved with it
    "AutoencoderKL": (Spelling("query, key, value, proj_attn", _old_attention),),
}

# A buffer that transformers before 4.31 saved with the parameters: the numbers 0, 1, 2, ... that index the positions.
POSITION_IDS = "text_model.embeddings.position_ids"
POSITIONS = "text_model.embeddings.position_embedding.weight"
IGNORABLE: Mapping[str, tuple[str, ...]] = {"CLIPTextModel": (POSITION_IDS,)}


def aliases(class_name: str, canonical: Iterable[str]) -> dict[str, str]:
    """Every accepted spelling of every canonical key: {key in the file: canonical key}.

    Raises: ValueError if two keys share a spelling, which would make the table ambiguous.
    """
    table: dict[str, str] = {}
    for key in canonical:
        for written in {key, *(spelling.write(key) for spelling in SPELLINGS.get(class_name, ()))}:
            if table.get(written, key) != key:
                raise ValueError(f"{written} would stand for {table[written]} and for {key}")
            table[written] = key
    return table


def squeezed(class_name: str, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its last two axes where an old file kept the autoencoder's attention as 1x1 convolutions.

    Traps: vae-attn-keys
    """
    is_projection = class_name == "AutoencoderKL" and _old_attention(key) != key and key.endswith(".weight")
    return shape[:2] if is_projection and len(shape) == 4 and shape[2:] == (1, 1) else shape
