"""The tensors of a program in torch under their golden names, without an edit of that program.

    with capture(unet=pipe.unet, text_encoder=pipe.text_encoder, vae=pipe.vae, scheduler=pipe.scheduler) as trace:
        pipe("a red circle", callback_on_step_end=trace.step_end, output_type="np")
    write_trace("theirs.safetensors", trace)

The modules are watched by hooks; torch itself is not imported. Names are the paths of the modules, which are those of the
checkpoint. A module that runs more than once in one call of its network (an activation, a dropout) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from refdiff.golden.collected import Calls, Captured, Collected, first_tensor, host


@contextmanager
def capture(
    *, unet: Any = None, text_encoder: Any = None, vae: Any = None, scheduler: Any = None, calls: Sequence[int] = (0,)
) -> Iterator[Captured]:
    """Watch networks as a program calls them, whichever are given, for one picture or one batch.

    `calls`: the calls of the U-Net of which every layer is kept; of the others, input, time and prediction. Two calls in a row
    with the same input and time are the two texts of one step, and count as one. The text encoder is taken to be called for the
    prompts first and then for the negative prompts, unless those alone are empty. Without guidance it is called for the
    prompts alone; its tensors are then left out, for a golden trace has both. What is taken to be so and not known stands in
    the notes of the trace.
    """
    seen = Collected(calls)
    with ExitStack() as stack:
        stack.callback(seen.arrange, scheduler)
        if text_encoder is not None:
            watch_text_encoder(text_encoder, seen, stack)
        if unet is not None:
            watch_unet(unet, seen, stack)
        if vae is not None:
            watch_decoder(vae, seen, stack)
        yield seen.trace


def watch_text_encoder(model: Any, seen: Collected, stack: ExitStack) -> None:
    """Every layer, and the ids, which come first or as input_ids."""
    calls = Calls()

    def before(module: Any, args: tuple, named: dict[str, Any]) -> None:
        calls.begin({"tokens/ids": host(named["input_ids"] if not args else args[0])})

    def after(module: Any, args: tuple, output: Any) -> None:
        seen.text(calls.end())

    _until_closed(stack, model.register_forward_pre_hook(before, with_kwargs=True))
    names = {name for name, _ in model.named_modules()}
    prefix = "text_encoder/" if "text_model" in names else "text_encoder/text_model."
    _watch_modules(model, prefix, calls, stack)
    _until_closed(stack, model.register_forward_hook(after))


def watch_unet(model: Any, seen: Collected, stack: ExitStack) -> None:
    """Every layer of the chosen calls; of all calls the input before it is doubled, the time, the prediction."""
    calls = Calls()

    def before(module: Any, args: tuple, named: dict[str, Any]) -> None:
        given = {**dict(zip(("sample", "timestep", "encoder_hidden_states"), args, strict=False)), **named}
        if seen.unet_begins(*(host(given[name]) for name in ("sample", "timestep", "encoder_hidden_states"))):
            calls.begin({})

    def after(module: Any, args: tuple, output: Any) -> None:
        seen.unet_ends(calls.end(), host(first_tensor(output)))

    _until_closed(stack, model.register_forward_pre_hook(before, with_kwargs=True))
    _watch_modules(model, "", calls, stack)
    _until_closed(stack, model.register_forward_hook(after))


def watch_decoder(model: Any, seen: Collected, stack: ExitStack) -> None:
    """Every layer from the latents to the picture."""
    calls = Calls()

    def before(module: Any, args: tuple) -> None:
        calls.begin({"vae/latents": host(args[0])})

    def after(module: Any, args: tuple, output: Any) -> None:
        seen.picture({**calls.end(), "vae/image": host(first_tensor(output))})

    first = getattr(model, "post_quant_conv", None) or model.decoder
    _until_closed(stack, first.register_forward_pre_hook(before))
    _watch_modules(model, "vae/", calls, stack)
    _until_closed(stack, model.decoder.register_forward_hook(after))


def _watch_modules(model: Any, prefix: str, calls: Calls, stack: ExitStack) -> None:
    for name, module in model.named_modules():
        if name:

            def after(module: Any, args: tuple, output: Any, *, name: str = prefix + name) -> None:
                calls.keep(name, output)

            _until_closed(stack, module.register_forward_hook(after))


def _until_closed(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)
