"""Who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from house.source import Source, Violation

# A package imports itself and these; errors, version and weights_path are below everything and open to everyone.
OPEN = {"errors", "version", "weights_path"}
BELOW_PIPELINES = {"xp", "core", "ops", "models", "diffusion", "checkpoints", "text", "samplers"}
EVERYTHING = BELOW_PIPELINES | {"pipelines", "training", "golden", "report", "kernels"}
TABLE: dict[str, set[str]] = {
    "xp": set(),
    "core": {"xp"},
    "ops": {"core", "xp"},
    "models": {"ops", "core", "xp"},
    "diffusion": {"ops", "xp"},
    "checkpoints": {"core", "xp"},
    "text": set(),
    "samplers": {"diffusion", "xp"},
    "pipelines": {"models", "samplers", "diffusion", "checkpoints", "text", "core", "xp"},
    "pipelines.load": {"pipelines", "checkpoints", "text", "core", "kernels", "xp"},  # where kernels are switched on
    "training": {"models", "diffusion", "checkpoints", "text", "ops", "core", "xp"},
    "golden": BELOW_PIPELINES | {"pipelines"},
    "golden.format": {"golden.manifest", "checkpoints", "xp"},  # whose reader of safetensors needs NumPy alone
    "golden.manifest": {"checkpoints"},
    "golden.compare": {"golden.format", "xp"},
    "report": {"golden.format", "golden.compare"},
    "kernels": {"ops", "core", "xp"},
    "cli": EVERYTHING | {"load", "use_kernels", "use_threads", "__version__"},  # refdiff's own
    "__init__": EVERYTHING | {"cli"},
    "__main__": {"cli"},
}
UPSTREAM = {"accelerate", "diffusers", "torch", "transformers"}
HOMES_OF_UPSTREAM = ("tools/", "tests/parity/")


def check(source: Source) -> Iterator[Violation]:
    """The import order of the packages, and upstream frameworks only where they are compared with."""
    for node, target in _imports(source):
        top = target.split(".")[0]
        if top in UPSTREAM and not source.path.startswith(HOMES_OF_UPSTREAM):
            yield source.violation(node, f"{top} may be imported only under {' and '.join(HOMES_OF_UPSTREAM)}")
        if source.path.startswith("refdiff/"):
            yield from _check_order(source, node, target)


def _check_order(source: Source, node: ast.AST, target: str) -> Iterator[Violation]:
    here = source.path.removeprefix("refdiff/").removesuffix(".py").split("/")
    if target.startswith("."):
        yield source.violation(node, "a relative import: write refdiff.… in full")
        return
    if not target.startswith("refdiff."):
        return
    own, wanted = here[0], target.split(".")[1:]
    name = ".".join(here[:2]) if ".".join(here[:2]) in TABLE else own
    allowed = TABLE.get(name, set())
    if own not in TABLE and own not in OPEN:
        yield source.violation(node, f"{own} is not in the table of imports (tools/house/imports.py)")
    elif wanted[0] not in {own, *OPEN} and not allowed & {wanted[0], ".".join(wanted[:2])}:
        yield source.violation(node, f"{name} may not import refdiff.{wanted[0]}")
    elif wanted[0] == own != name and not allowed & {own, ".".join(wanted[:2])} and wanted[1:2] != here[1:2]:
        yield source.violation(node, f"{name} may not import refdiff.{'.'.join(wanted[:2])}")
    if own == "cli" and wanted[0] not in {own, *OPEN} and node in source.tree.body:
        yield source.violation(node, f"cli imports refdiff.{wanted[0]} at its top: import it inside the command")


def _imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Each imported module, `from refdiff import ops` as refdiff.ops; a relative import as ".name"."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module in ("refdiff", "refdiff.golden"):
                yield from ((node, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node, module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node, str(node.args[0].value)
