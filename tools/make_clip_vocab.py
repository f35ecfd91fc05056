"""Make weights/clip_vocab from a wheel of open_clip_torch: python tools/make_clip_vocab.py WHEEL

The wheel ships OpenAI's file of 262,144 merges; CLIP uses the first 48,894 of them. (`pip download --no-deps
open_clip_torch==3.3.0` brings the wheel.) The same wheel gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "weights" / "clip_vocab"
MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
USED_MERGES = 49408 - 2 * 256 - 2  # the rest of the vocabulary: every byte twice, the start and the end of the text


def main(wheel: str) -> None:
    """Write merges.txt.gz and the entry of weights/manifest.json that says where it comes from."""
    with zipfile.ZipFile(wheel) as archive:
        original = archive.read(MEMBER)
    header, *merges = gzip.decompress(original).decode("utf-8").split("\n")
    if not header.startswith('"bpe_simple_vocab') or len(merges) < USED_MERGES:
        raise SystemExit(f"{wheel}: {MEMBER} is not the list of merges that was expected")
    compressed = gzip.compress(("\n".join(merges[:USED_MERGES]) + "\n").encode("utf-8"), compresslevel=9, mtime=0)
    # RFC 1952, byte 9: the system that packed it. 255 (unknown) keeps the file the same wherever it is made.
    compressed = compressed[:9] + b"\xff" + compressed[10:]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "merges.txt.gz").write_bytes(compressed)
    entry = {
        "what": "CLIP's byte-pair merges, one a line, in order of rank; the 49,408 tokens follow from them",
        "bytes": len(compressed),
        "sha256": hashlib.sha256(compressed).hexdigest(),
        "licence": "MIT",
        "copyright": [
            "OpenAI, 2021 (CLIP, where the list was published)",
            "Gabriel Ilharco and others, 2012-2021 (open_clip_torch, the package that it was taken from)",
        ],
        "origin": f"open_clip_torch 3.3.0 on PyPI, {MEMBER}",
        "origin_sha256": hashlib.sha256(original).hexdigest(),
        "made_by": "python tools/make_clip_vocab.py open_clip_torch-3.3.0-py3-none-any.whl",
        "how": "lines 2 to 48,895 of the origin (its header and the merges that CLIP does not use left out), gzip",
    }
    manifest = FOLDER.parent / "manifest.json"
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    manifest.write_text(json.dumps({**entries, "clip_vocab/merges.txt.gz": entry}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
