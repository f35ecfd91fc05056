"""Shifting shares of noise towards more or less of it, for large pictures or small ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.errors import BadRequest


def shifted(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """Math: k s / (1 + (k - 1) s).  Shapes: [n] -> [n]  Source: Esser et al. 2024 (arXiv 2403.03206), equation 23"""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamically_shifted(config: Mapping[str, Any], sigmas: np.ndarray) -> np.ndarray:
    """The shift that is right for the picture's size, which the caller says: mu, or its exponential.

    Shapes: [n] -> [n]
    Raises: BadRequest where the caller does not, and for a linear mu of 0 or less
    """
    mu, linear = config["mu"], config["time_shift_type"] == "linear"
    if mu is None:
        raise BadRequest(f'{config["_class_name"]} shifts dynamically: give settings {{"mu": ...}}, from the size of the picture')
    if linear and mu <= 0.0:
        raise BadRequest(f"mu {mu} with time_shift_type linear is the shift itself: give a number above 0")
    shift = mu if linear else math.exp(mu)
    return shift / (shift + (1 / sigmas - 1))


def flow_shift_of(config: Mapping[str, Any]) -> float:
    """flow_shift, or e^mu where the caller gives mu.

    Raises: BadRequest for a mu that the options have no use for
    """
    if config.get("mu") is None:
        return config["flow_shift"]
    if not config["use_dynamic_shifting"] or config["time_shift_type"] != "exponential":
        raise BadRequest(
            f"{config['_class_name']} takes mu {config['mu']} with use_dynamic_shifting and time_shift_type exponential alone"
        )
    return math.exp(config["mu"])


def stretched(sigmas: np.ndarray, last: float) -> np.ndarray:
    """The shares of noise with what they are from 1 stretched so that the last one is `last`.  Shapes: [n] -> [n]"""
    return 1 - (1 - sigmas) * ((1 - last) / (1 - sigmas[-1]))


def mu_of(config: Mapping[str, Any], tokens: int) -> float:
    """The mu of a picture of so many tokens, on the line that base_shift and max_shift of the configuration span.

    Math: mu = base + (max - base) (tokens - base tokens) / (max tokens - base tokens)
    Raises: BadRequest for a configuration that does not say them, or no tokens
    Source: diffusers' pipeline_flux.py, calculate_shift, which the pipelines of Stable Diffusion 3 and others share
    """
    names = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
    missing = [name for name in names if not isinstance(config.get(name), (int, float))]
    if missing:
        raise BadRequest(f"{config.get('_class_name')} does not say {missing[0]}: give mu itself")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise BadRequest(f"{tokens!r} tokens are no picture: give a whole number from 1 on")
    low, high, least, most = (config[name] for name in names)
    slope = (high - low) / (most - least)
    return tokens * slope + (low - slope * least)
