"""What the networks of another program gave, call by call, and their arrangement under golden names.

capture.py fills it from torch's modules, capture_onnx.py from ONNX models; neither is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refdiff.golden.compare import relative
from refdiff.golden.format import Trace

SCHEDULE = ("alphas_cumprod", "timesteps", "sigmas")  # attributes of a scheduler
HIDDEN = "text_encoder/text_model.final_layer_norm"  # what the text encoder is for
SAME = 1e-2  # relative error of a context beside the text encoder's result, which may have been rounded to half precision
BY_CALLS = "the U-Net is called once for each text: its first call of a step is taken for the negative prompt"
BY_TEXTS = "no prompt is empty: the text that was encoded last is taken for the negative prompt"
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Captured(Trace):
    """A trace that is complete after the with block."""

    tensors: Tensors = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def step_end(self, pipe: Any, index: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Keep the latents after a step; for diffusers' `callback_on_step_end`."""
        self.tensors[f"steps/{index:03d}/latents"] = host(values["latents"])
        return values


@dataclass
class Step:
    """A call of the U-Net, or the two calls of one step where it is called for each text apart."""

    sample: np.ndarray
    time: np.ndarray
    contexts: list[np.ndarray]
    layers: list[Tensors] = field(default_factory=list)
    predictions: list[np.ndarray] = field(default_factory=list)

    @property
    def doubled(self) -> bool:
        """One call for both texts: the input stands there twice."""
        half = len(self.sample) // 2
        return len(self.sample) % 2 == 0 and np.array_equal(self.sample[:half], self.sample[half:])

    def goes_on(self, sample: np.ndarray, time: np.ndarray) -> bool:
        """Whether a call after this one is for the other text of the same step."""
        first = len(self.predictions) == 1 and not self.doubled
        return first and np.array_equal(self.sample, sample) and np.array_equal(self.time, time)

    def named(self, at: str, order: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
        """Its tensors; those of two calls as one batch, in that order."""
        calls = order if len(self.predictions) == 2 else range(len(self.predictions))
        yield f"{at}/time", self.time
        yield f"{at}/input", self.sample[: len(self.sample) // 2] if self.doubled else self.sample
        for name in self.layers[0] if self.layers else ():
            if all(name in layers for layers in self.layers):
                yield f"{at}/unet/{name}", joined([self.layers[k][name] for k in calls])
        if self.predictions:
            yield f"{at}/prediction", joined([self.predictions[k] for k in calls])


class Collected:
    """The calls of the networks of one program; `chosen`: the steps of which every layer of the U-Net is kept."""

    def __init__(self, chosen: Sequence[int]) -> None:
        self.trace = Captured()
        self.chosen = frozenset(chosen)
        self.texts: list[Tensors] = []
        self.steps: list[Step] = []
        self.pictures: Tensors = {}
        self.notes: list[str] = []

    def text(self, made: Tensors) -> None:
        """A call of the text encoder, the ids among its tensors."""
        self.texts.append(made)

    def unet_begins(self, sample: np.ndarray, time: np.ndarray, context: np.ndarray) -> bool:
        """A call of the U-Net begins; whether its layers are to be kept."""
        time = time.reshape(-1)[0].reshape(())
        if self.steps and self.steps[-1].goes_on(sample, time):
            self.steps[-1].contexts.append(context)
        else:
            self.steps.append(Step(sample, time, [context]))
        return len(self.steps) - 1 in self.chosen

    def unet_ends(self, layers: Tensors, prediction: np.ndarray) -> None:
        """That call is over."""
        self.steps[-1].layers.append(layers)
        self.steps[-1].predictions.append(prediction)

    def picture(self, made: Tensors) -> None:
        """A call of the decoder; pictures that are decoded one by one become one batch."""
        for name, x in made.items():
            self.pictures[name] = joined([self.pictures[name], x]) if name in self.pictures else x

    def arrange(self, scheduler: Any) -> None:
        """Put everything into the trace, in the order of the run."""
        tensors = self.trace.tensors
        latents = dict(tensors)
        tensors.clear()
        texts, doubt = arranged(self.texts)
        order, more = self.halves(texts)
        tensors.update(with_context(texts, self.context(order), bool(self.steps)))
        tensors.update(tables(scheduler))
        for k, step in enumerate(self.steps):
            tensors.update(step.named(f"steps/{k:03d}", order))
            name = f"steps/{k:03d}/latents"
            if name in latents:
                tensors[name] = latents.pop(name)
        tensors.update({**latents, **self.pictures})
        if self.context(order) is not None or not self.steps:
            self.notes += [*doubt, *more]
        if self.notes:
            self.trace.manifest["about"] = {"notes": self.notes}

    def halves(self, texts: Tensors) -> tuple[tuple[int, int], list[str]]:
        """The places of the negative prompts' call and of the prompts' in a step of two, and what is not known of it."""
        step = next((step for step in self.steps if len(step.contexts) == 2), None)
        if step is None:
            return (0, 1), []
        negative = texts[HIDDEN][: len(texts[HIDDEN]) // 2] if HIDDEN in texts else None
        if negative is not None and negative.shape == step.contexts[0].shape:
            errors = [relative(context, negative) for context in step.contexts]
            if min(errors) <= SAME:
                return (0, 1) if errors[0] <= errors[1] else (1, 0), []
        return (0, 1), [BY_CALLS]

    def context(self, order: Sequence[int]) -> np.ndarray | None:
        """What the U-Net was given of both texts; None where it never saw both."""
        for step in self.steps:
            if len(step.contexts) == 2:
                return joined([step.contexts[k] for k in order])
            if step.doubled:
                return step.contexts[0]
        return None


class Calls:
    """What the modules of a network give in one call; one that gives several things in it is left out."""

    def __init__(self) -> None:
        self.now: Tensors | None = None  # None: nothing is kept
        self.counts: dict[str, int] = {}

    def begin(self, given: Tensors) -> None:
        """A call has begun with these tensors."""
        self.now, self.counts = given, {}

    def keep(self, name: str, value: Any) -> None:
        """A module of this call has given `value`."""
        x = first_tensor(value)
        if self.now is None or x is None:
            return
        self.counts[name] = self.counts.get(name, 0) + 1
        if self.counts[name] == 1:
            self.now[name] = host(x)
        else:
            self.now.pop(name, None)

    def end(self) -> Tensors:
        """The call is over."""
        made, self.now = self.now or {}, None
        return made


def host(x: Any) -> np.ndarray:
    """A copy of an array, or of a tensor of torch, in NumPy; bfloat16, which NumPy does not have, as float32."""
    if not hasattr(x, "detach"):
        return np.array(x, order="C")
    x = x.detach().cpu()
    try:
        return np.array(x.numpy(), order="C")
    except TypeError:
        return np.array(x.float().numpy(), order="C")


def first_tensor(value: Any) -> Any:
    """The tensor that a module gives: the first one where it gives several, None where it gives none."""
    if hasattr(value, "detach"):
        return value
    parts = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else []
    return first_tensor(parts[0]) if parts else None


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One batch of several."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def arranged(calls: Sequence[Tensors]) -> tuple[Tensors, list[str]]:
    """The calls of the text encoder as one batch, negative prompts first, and what is not known of that order.

    One call has that order already. Of several the first half is taken for the prompts, as diffusers calls it, but where that
    half alone has only empty texts: those are the negative prompts.
    """
    if not calls:
        return {}, []
    common = [name for name in calls[0] if all(name in call for call in calls)]
    found = {name: joined([call[name] for call in calls]) for name in common}
    ids = found["tokens/ids"]
    rows, half, notes = np.arange(len(ids)), len(ids) // 2, []
    if len(calls) > 1:
        empty = [bool((part.argmax(axis=-1) == 1).all()) for part in (ids[:half], ids[half:])]  # the end has the largest id
        if empty[0] == empty[1] and not np.array_equal(ids[:half], ids[half:]):
            notes.append(BY_TEXTS)
        if not empty[0] or empty[1]:
            rows = np.roll(rows, len(rows) - half)
    return {name: x[rows] for name, x in found.items() if len(x) == len(rows)}, notes


def with_context(texts: Tensors, context: np.ndarray | None, drawn: bool) -> Tensors:
    """The tensors of the text encoder and what the U-Net took of them; nothing where a run saw the prompts alone."""
    if not texts or (drawn and context is None):
        return {} if context is None else {"text_encoder/context": context}
    if context is None or len(context) != len(texts["tokens/ids"]):
        context = texts.get(HIDDEN)
    return texts if context is None else {**texts, "text_encoder/context": context}


def tables(scheduler: Any) -> Tensors:
    """The schedule of a scheduler, whichever tables it has."""
    found = {f"schedule/{name}": getattr(scheduler, name, None) for name in SCHEDULE}
    return {name: host(x) for name, x in found.items() if x is not None}
