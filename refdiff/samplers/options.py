"""Reading a scheduler_config.json: every option is honoured or refused by name, none is passed over."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refdiff.errors import BadRequest
from refdiff.samplers.family import Family
from refdiff.samplers.schedulers import FAMILIES, FOREIGN

FILE = "scheduler_config.json"


def read(config: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """The contents of a scheduler's configuration: itself, its file, or the folder that the file is in.

    Raises: BadRequest where there is no such file, or it is not a JSON object
    """
    if isinstance(config, Mapping):
        return config
    path = Path(config) / FILE if Path(config).is_dir() else Path(config)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} cannot be read as a scheduler's configuration: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest(f"{path} is not a scheduler's configuration: it holds no JSON object")
    return data


def choose(data: Mapping[str, Any], name: str | None) -> tuple[Family, dict[str, Any]]:
    """The family that is meant, and every option that it has.

    With a `name`, the betas and the prediction type are those of `data`, and so are all further options that the family
    named shares with it.
    Raises: BadRequest for an unknown class, name or option, and for a value that is not supported
    """
    own = next((f for f in FAMILIES.values() if f.class_name == data.get("_class_name")), None)
    if name is not None and name not in FAMILIES:
        raise BadRequest(f'unknown sampler "{name}": choose one of {", ".join(FAMILIES)}')
    family = own if name is None else FAMILIES[name]
    if family is None:
        known = ", ".join(f.class_name for f in FAMILIES.values())
        raise BadRequest(f"scheduler {data.get('_class_name')!r} is not among {known}: use --sampler {' or '.join(FAMILIES)}")
    if family is own:
        return family, _own_options(family, data)
    return family, _borrowed_options(family, own, data)


def _own_options(family: Family, data: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a file of this family writes out, and upstream's defaults for the others."""
    for key, value in data.items():
        if key in family.defaults or key.startswith("_") or value in FOREIGN.get(key, ()):
            continue
        meaning = f"{key} = {value!r} is not an option of it" if key in FOREIGN else f"unknown option {key} = {value!r}"
        raise BadRequest(f"{family.class_name}: {meaning}; its options are {', '.join(family.defaults)}")
    return _checked(family, {**family.defaults, **{k: v for k, v in data.items() if k in family.defaults}})


def _borrowed_options(family: Family, own: Family | None, data: Mapping[str, Any]) -> dict[str, Any]:
    """This family's options, where the file was written for another one, `own` (None: one that is not known here)."""
    unknown = [k for k in data if own and k not in own.defaults and k not in FOREIGN and not k.startswith("_")]
    if own and unknown:
        raise BadRequest(f"{own.class_name}: unknown option {unknown[0]} = {data[unknown[0]]!r}: take it out of the file")
    kind = _kind(own.defaults if own else data)
    if (own or kind) and kind != _kind(family.defaults):
        raise BadRequest(
            f"{family.class_name} is for another kind of model than {data.get('_class_name')}: choose another sampler"
        )
    missing = [k for k in ("beta_start", "beta_end", "beta_schedule") if k not in data]
    if own is None and missing:
        raise BadRequest(f"{data.get('_class_name')!r} does not say its {', '.join(missing)}: it has no schedule to use")
    if data.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in family.defaults:
        able = " or ".join(name for name, f in FAMILIES.items() if "rescale_betas_zero_snr" in f.defaults)
        raise BadRequest(f"{family.class_name} has no rescale_betas_zero_snr, by which this model was trained: choose {able}")
    kind = data.get("prediction_type", "epsilon")
    if kind != "epsilon" and "prediction_type" not in family.defaults:
        raise BadRequest(f"{family.class_name} is for networks that predict noise, not for prediction_type {kind!r}")
    asked = {**BORROWED, **data}
    options = {**family.defaults, **{k: v for k, v in asked.items() if k in family.defaults}}
    for key, allowed in family.only.items():
        if key not in data and options[key] not in allowed:  # a default of upstream's that it may not even use
            options[key] = allowed[0]
    return _checked(family, options)


def _kind(options: Mapping[str, Any]) -> str | None:
    """What tells a model of diffusion, of flow matching, of EDM and of scores from each other: they answer different questions.

    None is iPNDM's, whose schedule is its own.
    """
    return next((key for key in ("beta_schedule", "shift", "sigma_data", "snr") if key in options), None)


def _checked(family: Family, options: dict[str, Any]) -> dict[str, Any]:
    for key, allowed in family.only.items():
        if options[key] not in allowed:
            listed = " or ".join(repr(v) for v in allowed)
            raise BadRequest(f"{family.class_name}: option {key} = {options[key]!r} is not supported; it must be {listed}")
    for key, value in options.items():
        if key in WHOLE and (type(value) is not int or value < WHOLE[key]):
            raise BadRequest(f"{family.class_name}: {key} = {value!r} must be a whole number from {WHOLE[key]} on")
        if key in NUMBERS and not (value is None and family.defaults[key] is None):
            low, high = NUMBERS[key]
            if type(value) not in (int, float) or not low < value < high:
                raise BadRequest(f"{family.class_name}: {key} = {value!r} must be a number between {low:g} and {high:g}")
    betas, count = options.get("trained_betas"), options["num_train_timesteps"]
    given = betas is not None and "beta_schedule" in options  # iPNDM's are of the steps, not of training
    if given and (not isinstance(betas, (list, tuple)) or len(betas) != count):
        raise BadRequest(f"{family.class_name}: trained_betas must be a list of {count} numbers")
    return options


# What another solver for the same model takes where the file does not say: PNDM as Stable Diffusion has it.
BORROWED = {"skip_prk_steps": True}

# What an option's number must be: from here on, and strictly between these.
WHOLE = {"num_train_timesteps": 1, "steps_offset": 0, "original_inference_steps": 1, "correct_steps": 0}
NUMBERS = {
    "beta_start": (0.0, 1.0), "beta_end": (0.0, 1.0), "sigma_min": (0.0, math.inf), "sigma_max": (0.0, math.inf),
    "clip_sample_range": (0.0, math.inf), "dynamic_thresholding_ratio": (0.0, 1.0), "sample_max_value": (0.0, math.inf),
    "timestep_scaling": (0.0, math.inf),
    "shift": (0.0, math.inf), "shift_terminal": (0.0, 1.0),
    "sigma_data": (0.0, math.inf), "rho": (0.0, math.inf), "snr": (0.0, math.inf), "sampling_eps": (0.0, 1.0),
}  # fmt: skip


# What a setting's number must be, where that is not from 0 on.
BETWEEN = {"eta": (0.0, 1.0), "mu": (-100.0, 100.0), "strength": (1e-3, 1.0)}
FLAGS = ("use_clipped_model_output",)


def check_settings(family: Family, settings: Mapping[str, Any]) -> None:
    """Raises: BadRequest for a setting that the family does not have, or that is not between its bounds"""
    for key, value in settings.items():
        if key not in family.settings:
            able = " or ".join(name for name, f in FAMILIES.items() if key in f.settings)
            raise BadRequest(
                f"{family.class_name} has no {key}: leave {key} {value} out" + (f", or use --sampler {able}" if able else "")
            )
        if key in family.arrays:
            continue
        if key in FLAGS:
            if type(value) is not bool:
                raise BadRequest(f"{key} {value!r} is not True or False")
            continue
        low, high = BETWEEN.get(key, (0.0, math.inf))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise BadRequest(f"{key} {value} is outside {low:g}..{'infinity' if high == math.inf else f'{high:g}'}")
        if key == "order" and (not isinstance(value, int) or value < 1):
            raise BadRequest(f"order {value} is not a whole number from 1 on")
