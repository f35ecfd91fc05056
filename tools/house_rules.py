"""Check the rules of the code: python tools/house_rules.py

Prints `file:line: message` for each place that breaks one, and exits with 1 if there is any. The rules stand in
tools/house/, one kind a file. A line may carry `# house: reason` to excuse a default or a write; they are counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from house import arguments, imports, prose, sizes
from house.source import Source, Violation

ROOT = Path(__file__).resolve().parent.parent
PYTHON_FOLDERS = ["refdiff", "tests", "tools", "docs"]
PAGES = ["README.md", "CHANGELOG.md", "docs"]
RULES = (imports.check, sizes.check, arguments.check, prose.check)
ONE_FILE_BY_DESIGN = "docs/one_page.py"


def check_source(source: Source) -> list[Violation]:
    """Every rule on one Python file."""
    found = [violation for rule in RULES for violation in rule(source)]
    return [v for v in found if not (source.path == ONE_FILE_BY_DESIGN and "in one file" in v.message)]


def check_tree(root: Path) -> list[Violation]:
    """Every rule on every file below `root`."""
    found: list[Violation] = []
    for path in _files(root, PYTHON_FOLDERS, ".py"):
        found += check_source(read(root, path))
    for path in _files(root, PAGES, ".md"):
        found += prose.check_markdown(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    existing = [name for name in [*PAGES, *PYTHON_FOLDERS[:3]] if (root / name).exists()]
    return found + prose.codespell(root, existing)


def read(root: Path, path: Path) -> Source:
    """A file as the rules see it."""
    return Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))


def _files(root: Path, names: list[str], suffix: str) -> Iterator[Path]:
    for name in names:
        if (root / name).is_file():
            yield root / name
        else:
            yield from sorted(p for p in (root / name).rglob(f"*{suffix}") if "__pycache__" not in p.parts)


def main() -> int:
    """Check this repository."""
    found = check_tree(ROOT)
    for violation in sorted(found, key=lambda v: (v.path, v.line)):
        print(violation)
    sources = [read(ROOT, path) for path in _files(ROOT, ["refdiff"], ".py")]
    excuses = sum(comment.startswith("# house: ") for source in sources for comment in source.comments.values())
    print(f"house rules: {len(found)} broken, {excuses} excused", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
