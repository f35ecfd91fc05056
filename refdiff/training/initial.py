"""The first values of parameters that are to be trained."""

from __future__ import annotations

import math

import numpy as np

from refdiff.core.params import Declaration, flatten_declaration

EMBEDDING_DEVIATION = 0.02  # of tokens and positions, as CLIP's


def initial_values(declaration: Declaration, *, seed: int) -> dict[str, np.ndarray]:
    """Random float32 values for every declared parameter.

    Math: weights and biases uniform in +-1 / sqrt(fan in) (a bias takes the fan in of the weight before it), gains 1,
    offsets 0, embeddings normal with deviation 0.02
    Source: PyTorch's nn.Linear and nn.Conv2d; Radford et al. 2021 (arXiv 2103.00020) for the embeddings
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    values, bound = {}, 0.0
    for key, leaf in flatten_declaration(declaration).items():
        if leaf.init == "weight":
            bound = 1.0 / math.sqrt(leaf.fan_in)
        if leaf.init in ("weight", "bias"):
            value = rng.uniform(-bound, bound, size=leaf.shape)
        elif leaf.init == "embedding":
            value = rng.normal(size=leaf.shape) * EMBEDDING_DEVIATION
        else:
            value = np.full(leaf.shape, 1.0 if leaf.init == "gain" else 0.0)
        values[key] = value.astype(np.float32)
    return values
