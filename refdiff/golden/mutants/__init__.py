"""The bugs that are known: each a small change to our own code path. What they are is told in bugs.toml, by the same ids."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from refdiff.golden.mutants import encoder, half, loop, noise, pieces, pixels, state, text_encoder, tokens, unet, vae
from refdiff.golden.mutants.kind import Mutant, Site, Variant

CODE = (tokens, text_encoder, unet, vae, half, pixels, loop, noise, state, encoder, pieces)


@cache
def mutants() -> tuple[Mutant, ...]:
    """Every bug of bugs.toml with the variants that the modules here have for it."""
    told = tomllib.loads(files(__name__).joinpath("bugs.toml").read_text(encoding="utf-8"))
    return tuple(
        Mutant(name, bug["title"], bug["why"], bug["where"], tuple(bug["links"]), tuple(bug["stages"]), variants_of(name))
        for name, bug in told.items()
    )


def variants_of(name: str) -> Mapping[str, Variant]:
    """The ways in which a bug is made; none where it cannot be in text to image with Stable Diffusion 1.x."""
    return {variant: make for module in CODE for variant, make in module.VARIANTS.get(name, {}).items()}


__all__ = ["Mutant", "Site", "mutants"]
