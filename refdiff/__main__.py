"""python -m refdiff: the command, where no scripts are on the path."""

from __future__ import annotations

from refdiff.cli import main

main()
