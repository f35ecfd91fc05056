"""docs/quirks.md: every entry says where it is held, and those files are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "quirks.md").read_text(encoding="utf-8")


def test_the_files_that_are_named_are_there():
    named = set(re.findall(r"(?:docs|refdiff|tests|tools)/[\w/]+\.(?:json|md|py)", PAGE))
    assert len(named) > 20 and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_section_names_its_tests():
    sections = PAGE.split("\n## ")[1:]
    assert len(sections) > 10
    assert [section.splitlines()[0] for section in sections if "tests/" not in section] == []
