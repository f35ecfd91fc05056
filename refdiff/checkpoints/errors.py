"""What is wrong with a checkpoint, always with the file and, where there is one, the key."""

from __future__ import annotations

from pathlib import Path

from refdiff.errors import BadRequest


class CheckpointError(BadRequest):
    """A checkpoint that is not what it claims to be; `file` and `key` say where."""

    def __init__(self, file: Path | str, problem: str, *, key: str | None = None):
        self.file, self.key, self.problem = Path(file), key, problem
        super().__init__(f"{file}: {problem}" if key is None else f"{file}: tensor {key!r} {problem}")
