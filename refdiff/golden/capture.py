"""The tensors of a program in torch under their golden names, without an edit of that program.

    with capture(unet=pipe.unet, text_encoder=pipe.text_encoder, vae=pipe.vae, scheduler=pipe.scheduler) as trace:
        pipe("a red circle", callback_on_step_end=trace.step_end, output_type="np")
    write_trace("theirs.safetensors", trace)

The modules are watched by hooks; torch itself is not imported. Names are the paths of the modules, which are those of the
checkpoint. A module that runs more than once in one call of its network (an activation, a dropout) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refdiff.golden.format import Trace

SCHEDULE = ("alphas_cumprod", "timesteps", "sigmas")  # attributes of a scheduler
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Captured(Trace):
    """A trace that grows while the program runs, complete after the with block."""

    tensors: Tensors = field(default_factory=dict)

    def step_end(self, pipe: Any, index: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Keep the latents after a step; for diffusers' `callback_on_step_end`."""
        self.tensors[f"steps/{index:03d}/latents"] = host(values["latents"])
        return values


@contextmanager
def capture(
    *, unet: Any = None, text_encoder: Any = None, vae: Any = None, scheduler: Any = None, calls: Sequence[int] = (0,)
) -> Iterator[Captured]:
    """Watch networks as diffusers' pipelines call them, whichever are given, for one picture or one batch.

    `calls`: the calls of the U-Net of which every layer is kept; of the others, input, time and prediction. The text encoder is
    taken to be called for the prompts first and then for the negative prompts. Without guidance it is called for the prompts
    alone; its tensors are then left out, for a golden trace has both.
    """
    trace, texts = Captured(), Calls()
    with ExitStack() as stack:
        if text_encoder is not None:
            watch_text_encoder(text_encoder, texts, stack)
        if unet is not None:
            watch_unet(unet, trace.tensors, set(calls), stack)
        if vae is not None:
            watch_decoder(vae, trace.tensors, stack)
        yield trace
    seen = dict(trace.tensors)
    trace.tensors.clear()
    trace.tensors.update({**_texts(texts, seen), **_schedule(scheduler)})
    trace.tensors.update({name: x for name, x in seen.items() if name not in trace.tensors})


class Calls:
    """What the modules of a network give, call by call."""

    def __init__(self) -> None:
        self.done: list[Tensors] = []
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


def watch_text_encoder(model: Any, texts: Calls, stack: ExitStack) -> None:
    """Every layer, and the ids, which come first or as input_ids."""

    def before(module: Any, args: tuple, named: dict[str, Any]) -> None:
        texts.begin({"tokens/ids": host(named["input_ids"] if not args else args[0])})

    def after(module: Any, args: tuple, output: Any) -> None:
        texts.done.append(texts.end())

    _until_closed(stack, model.register_forward_pre_hook(before, with_kwargs=True))
    names = {name for name, _ in model.named_modules()}
    prefix = "text_encoder/" if "text_model" in names else "text_encoder/text_model."
    _watch_modules(model, prefix, texts, stack)
    _until_closed(stack, model.register_forward_hook(after))


def watch_unet(model: Any, tensors: Tensors, chosen: set[int], stack: ExitStack) -> None:
    """Every layer of the chosen calls; of all calls the input before it is doubled, the time, the prediction."""
    count = iter(range(1 << 30))
    calls, at = Calls(), [""]

    def before(module: Any, args: tuple, named: dict[str, Any]) -> None:
        index = next(count)
        at[0] = f"steps/{index:03d}"
        given = {**dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)), **named}
        x, context, time = host(given["sample"]), host(given["encoder_hidden_states"]), given["timestep"]
        half = len(x) // 2
        doubled = len(x) % 2 == 0 and np.array_equal(x[:half], x[half:])
        tensors[f"{at[0]}/time"] = host(time).reshape(-1)[0].reshape(()) if hasattr(time, "detach") else np.array(time)
        tensors[f"{at[0]}/input"] = x[:half] if doubled else x
        if doubled:
            tensors.setdefault("text_encoder/context", context)
        if index in chosen:
            calls.begin({})

    def after(module: Any, args: tuple, output: Any) -> None:
        tensors.update({f"{at[0]}/unet/{name}": x for name, x in calls.end().items()})
        tensors[f"{at[0]}/prediction"] = host(first_tensor(output))

    _until_closed(stack, model.register_forward_pre_hook(before, with_kwargs=True))
    _watch_modules(model, "", calls, stack)
    _until_closed(stack, model.register_forward_hook(after))


def watch_decoder(model: Any, tensors: Tensors, stack: ExitStack) -> None:
    """Every layer from the latents to the picture; pictures that are decoded one by one become one batch."""
    calls = Calls()

    def before(module: Any, args: tuple) -> None:
        calls.begin({"vae/latents": host(args[0])})

    def after(module: Any, args: tuple, output: Any) -> None:
        made = {**calls.end(), "vae/image": host(first_tensor(output))}
        tensors.update({name: np.concatenate([tensors[name], x]) if name in tensors else x for name, x in made.items()})

    first = getattr(model, "post_quant_conv", None) or model.decoder
    _until_closed(stack, first.register_forward_pre_hook(before))
    _watch_modules(model, "vae/", calls, stack)
    _until_closed(stack, model.decoder.register_forward_hook(after))


def host(x: Any) -> np.ndarray:
    """A copy of a tensor in NumPy; bfloat16, which NumPy does not have, as float32."""
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


def _watch_modules(model: Any, prefix: str, calls: Calls, stack: ExitStack) -> None:
    for name, module in model.named_modules():
        if name:

            def after(module: Any, args: tuple, output: Any, *, name: str = prefix + name) -> None:
                calls.keep(name, output)

            _until_closed(stack, module.register_forward_hook(after))


def _until_closed(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)


def _texts(texts: Calls, seen: Tensors) -> Tensors:
    """The calls of the text encoder as one batch, the last call's rows first; nothing where it saw the prompts alone."""
    context = seen.get("text_encoder/context")
    rows = sum(len(call["tokens/ids"]) for call in texts.done)
    alone = any(name.endswith("/input") for name in seen) and context is None
    if not texts.done or alone:
        return {} if context is None else {"text_encoder/context": context}
    common = [name for name in texts.done[0] if all(name in call for call in texts.done)]
    found = {name: np.concatenate([call[name] for call in reversed(texts.done)]) for name in common}
    if context is None or len(context) != rows:
        context = found["text_encoder/text_model.final_layer_norm"]
    return {**{name: x for name, x in found.items() if len(x) == rows}, "text_encoder/context": context}


def _schedule(scheduler: Any) -> Tensors:
    found = {f"schedule/{name}": getattr(scheduler, name, None) for name in SCHEDULE}
    return {name: host(x) if hasattr(x, "detach") else np.array(x) for name, x in found.items() if x is not None}
