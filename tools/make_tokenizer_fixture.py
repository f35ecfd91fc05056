"""Make tests/text/tricky_prompts.json with transformers' CLIPTokenizer: python tools/make_tokenizer_fixture.py

The ids are stored as transformers gives them, cut to 77, without the padding. Needs the `parity` extra.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import transformers
from tricky_prompts import PROMPTS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from refdiff.text import Tokenizer  # noqa: E402

FIXTURE = ROOT / "tests" / "text" / "tricky_prompts.json"
PADS = {"<|endoftext|>": "as CLIP and SD 1.x", "!": "as SD 2.x"}


def ids_by_transformers(pad: str) -> list[list[int]]:
    """The ids of every prompt, by a tokenizer whose folder names `pad` as the padding."""
    with tempfile.TemporaryDirectory() as folder:
        Tokenizer.clip().write_folder(folder)
        upstream = transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad)
    return [upstream(prompt, truncation=True).input_ids for prompt in PROMPTS]


def main() -> None:
    """Write the fixture."""
    if len(set(PROMPTS)) != len(PROMPTS):
        raise SystemExit("tools/tricky_prompts.py: a prompt stands twice")
    clip, sd2 = (ids_by_transformers(pad) for pad in PADS)
    rows = [
        # The ids of SD 2 are stored where they are others, padding apart: in prompts with an exclamation mark.
        {"prompt": prompt, "ids": ours} | ({} if ours == other else {"ids_where_pad_is_!": other})
        for prompt, ours, other in zip(PROMPTS, clip, sd2, strict=True)
    ]
    head = f'{{"made_by": "tools/make_tokenizer_fixture.py, transformers {transformers.__version__}",\n"prompts": [\n'
    body = ",\n".join(json.dumps(row) for row in rows)
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(head + body + "\n]}\n", encoding="ascii")
    print(f"{len(rows)} prompts")


if __name__ == "__main__":
    main()
