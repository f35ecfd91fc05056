"""What is written for people: docstrings, type hints, spelling, and nothing of one machine."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from house.source import Function, Source, Violation, docstring_node, parameters

SECTIONS = ["Math", "Shapes", "Raises", "Source", "Traps", "Example"]
_SECTION = re.compile(r"^([A-Z][A-Za-z]*):(?= |$)", re.MULTILINE)
_MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|tmp|work|Users)/")
_AMERICAN = re.compile(
    r"\b(colou?red|colors?|behaviors?|normaliz\w+|initializ\w+|neighbors?|neighboring|centers?|centered|gray"
    r"|favorite|recogniz\w+|generaliz\w+|summariz\w+|minimiz\w+|maximiz\w+|labeled|labeling|analyz\w+)\b"
)
_CODE = re.compile(r"```.*?```|`[^`]*`|\"[^\"\n]*\"|\S*\w[_/.(=]\w\S*", re.DOTALL)


def check(source: Source) -> Iterator[Violation]:
    """Docstrings and hints of public functions, paths of one machine, British spelling."""
    if source.path.startswith("refdiff/"):
        for function in source.public_functions:
            yield from _check_function(source, function)
    for number, line in enumerate(source.text.splitlines(), 1):
        if not source.path.startswith("tests/") and _MACHINE_PATH.search(line):
            yield Violation(source.path, number, "a path of one machine")
    for number, comment in source.comments.items():
        yield from check_spelling(source.path, number, comment)
    for docstring in source.docstrings:
        yield from check_spelling(source.path, docstring.lineno, str(docstring.value))


def check_markdown(path: str, text: str) -> Iterator[Violation]:
    """The spelling of a page, and paths of one machine in it."""
    yield from check_spelling(path, 1, text)
    for number, line in enumerate(text.splitlines(), 1):
        if _MACHINE_PATH.search(line):
            yield Violation(path, number, "a path of one machine")


def check_spelling(path: str, first_line: int, text: str) -> Iterator[Violation]:
    """American spellings in prose; what stands in backticks or quotes, or looks like code, is left alone."""
    prose = _CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    for match in _AMERICAN.finditer(prose):
        if not match[0].startswith("coloured"):
            line = first_line + prose.count("\n", 0, match.start())
            yield Violation(path, line, f'"{match[0]}" in prose: British spelling here')


def codespell(root: Path, folders: list[str]) -> list[Violation]:
    """The misspellings that codespell finds; its settings are in pyproject.toml."""
    command = [sys.executable, "-m", "codespell_lib", *folders]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 65):  # 65: it found some
        return [Violation("codespell", 1, f'cannot run: pip install ".[test]" ({done.stderr.strip()})')]
    found = re.findall(r"^(?:\./)?(.+?):(\d+): (.*)$", done.stdout, re.MULTILINE)
    return [Violation(path, int(line), f"spelling: {message}") for path, line, message in found]


def _check_function(source: Source, function: Function) -> Iterator[Violation]:
    node = docstring_node(function)
    if node is None:
        yield source.violation(function, f"{function.name} has no docstring")
    else:
        sections = _SECTION.findall(inspect.cleandoc(str(node.value)))
        unknown = [s for s in sections if s not in SECTIONS]
        if unknown:
            allowed = ", ".join(SECTIONS)
            yield source.violation(node, f'{function.name}: section "{unknown[0]}" is not one of {allowed}')
        elif sections != sorted(sections, key=SECTIONS.index):
            yield source.violation(node, f"{function.name}: sections stand in the order {', '.join(SECTIONS)}")
    bare = [p.arg for p in parameters(function) if p.annotation is None]
    if bare or function.returns is None:
        yield source.violation(function, f"{function.name}: no type hint for {', '.join(bare) or 'the result'}")
