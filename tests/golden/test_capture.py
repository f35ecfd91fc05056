"""Capturing the tensors of a program by hooks, on stand-ins for torch's modules and tensors."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.golden.capture import capture
from refdiff.golden.collected import first_tensor, host
from refdiff.golden.format import read_trace, write_trace


class Tensor:
    """What capture asks of a tensor; `half` is one that NumPy has no type for."""

    def __init__(self, x, half=False):
        self.x, self.half = np.asarray(x), half

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.x.astype(np.float32))

    def numpy(self):
        if self.half:
            raise TypeError("unsupported ScalarType BFloat16")
        return self.x


class Handle:
    """Removes a hook."""

    def __init__(self, hooks, hook):
        self.remove = lambda: hooks.remove(hook)


class Module:
    """A module that calls its children in turn, `times` each, on tensors; its hooks are as torch's."""

    def __init__(self, function=None, times=1, **children):
        self.function, self.times, self.children = function, times, children
        self.before, self.after = [], []
        self.__dict__.update(children)

    def named_modules(self, path=""):
        yield path, self
        for name, child in self.children.items():
            yield from child.named_modules(f"{path}.{name}" if path else name)

    def register_forward_pre_hook(self, hook, with_kwargs=False):
        self.before.append(pair := (hook, with_kwargs))
        return Handle(self.before, pair)

    def register_forward_hook(self, hook):
        self.after.append(hook)
        return Handle(self.after, hook)

    def __call__(self, *args, **named):
        for hook, with_kwargs in self.before:
            hook(self, args, named) if with_kwargs else hook(self, args)
        x = (args or [named.get("input_ids", named.get("sample"))])[0]
        for _ in range(self.times):
            for child in self.children.values():
                x = first_tensor(child(x))
        y = x if self.function is None else self.function(x)
        for hook in self.after:
            hook(self, args, y)
        return y

    @property
    def hooks(self):
        """How many there are, below too."""
        return sum(len(m.before) + len(m.after) for _, m in self.named_modules())


# The end has the largest id, 9, as in CLIP's vocabulary.
TEXTS = {"empty": [8, 9, 9, 9], "other": [8, 3, 4, 9], "words": [8, 5, 9, 9]}


class ByText(Module):
    """A U-Net whose prediction tells its text: the sum of the context."""

    def __call__(self, x, time, context):
        for hook, _ in self.before:
            hook(self, (x, time, context), {})
        y = Tensor(np.full_like(x.x, context.x.sum()))
        for hook in self.after:
            hook(self, (x, time, context), y)
        return (y,)


def plus(n):
    return Module(lambda x: Tensor(x.x + n))


def text_encoder():
    last = Module(lambda ids: Tensor(ids.x[..., None] * 1.0))
    return Module(lambda x: {"last_hidden_state": x, "pooled": None}, embeddings=last, final_layer_norm=plus(0.5))


def unet():
    return Module(lambda x: (x, "more"), conv_in=plus(1), act=Module(times=2, twice=plus(2)))


def vae():
    return Module(post_quant_conv=plus(3), decoder=Module(conv_in=plus(4)))


def run(models, trace, *, steps=2, guided=True):
    """A pipeline, in the order of diffusers' calls."""
    ids = np.array([[1, 2], [3, 4]])
    for row in ids if guided else ids[:1]:
        models["text_encoder"](Tensor(row[None]))
    x = np.arange(6.0, dtype=np.float32).reshape(1, 1, 2, 3)
    for k in range(steps):
        both = np.concatenate([x, x]) if guided else x
        text = np.zeros((len(both), 2, 1), np.float32)
        y = models["unet"](Tensor(both), Tensor(np.int64(900 - k)), encoder_hidden_states=Tensor(text, half=True))
        x = y[0].x[:1]
        assert trace.step_end(None, k, None, {"latents": Tensor(x)}).keys() == {"latents"}
    for row in [x, x]:
        models["vae"].decoder(models["vae"].post_quant_conv(Tensor(row)))


def run_apart(models, *, encoded, called, steps=2):
    """A program by hand that calls the U-Net once for each text, both in the order of these lists of texts."""
    contexts = {text: models["text_encoder"](Tensor(np.array([TEXTS[text]])))["last_hidden_state"].x for text in encoded}
    x = np.arange(6.0, dtype=np.float32).reshape(1, 1, 2, 3)
    for k in range(steps):
        made = {text: models["unet"](Tensor(x), np.int64(900 - k), Tensor(contexts[text]))[0].x for text in called}
        x = made["other"] + contexts["other"].sum() * 2 - contexts[called[0]].sum()


@pytest.fixture
def models():
    return {"text_encoder": text_encoder(), "unet": unet(), "vae": vae()}


def test_tensors_have_golden_names_and_the_order_of_the_run(models):
    with capture(**models, scheduler=type("S", (), {"timesteps": np.array([900, 899])})(), calls=(1,)) as trace:
        run(models, trace)
    assert list(trace.tensors) == [
        "tokens/ids", "text_encoder/text_model.embeddings", "text_encoder/text_model.final_layer_norm", "text_encoder/context",
        "schedule/timesteps", "steps/000/time", "steps/000/input", "steps/000/prediction", "steps/000/latents",
        "steps/001/time", "steps/001/input", "steps/001/unet/conv_in", "steps/001/unet/act", "steps/001/prediction",
        "steps/001/latents", "vae/latents", "vae/post_quant_conv", "vae/decoder.conv_in", "vae/decoder", "vae/image",
    ]  # fmt: skip


def test_values_are_those_of_the_run(models):
    with capture(**models) as trace:
        run(models, trace)
    found = trace.tensors
    assert found["tokens/ids"].tolist() == [[3, 4], [1, 2]]  # the negative prompt is encoded last and stands first
    assert found["text_encoder/text_model.final_layer_norm"][:, 0, 0].tolist() == [3.5, 1.5]
    assert found["text_encoder/context"].dtype == np.float32
    assert found["steps/000/time"].shape == ()
    assert found["steps/001/time"] == 899
    assert found["steps/000/input"].shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(found["steps/000/unet/conv_in"][1], found["steps/000/input"][0] + 1)
    np.testing.assert_array_equal(found["steps/000/prediction"][:1], found["steps/000/latents"])
    assert "steps/000/unet/act.twice" not in found
    assert found["vae/image"].shape == (2, 1, 2, 3)
    np.testing.assert_array_equal(found["vae/latents"][0], found["steps/001/latents"][0])
    np.testing.assert_array_equal(found["vae/image"], found["vae/latents"] + 7)


def test_without_guidance_the_text_of_both_branches_is_not_known(models):
    with capture(**models) as trace:
        run(models, trace, guided=False)
    assert not any(name.startswith(("tokens/", "text_encoder/")) for name in trace.tensors)
    assert trace.tensors["steps/000/prediction"].shape == (1, 1, 2, 3)


@pytest.mark.parametrize("called", [("empty", "other"), ("other", "empty")])
@pytest.mark.parametrize("encoded", [("empty", "other"), ("other", "empty")])
def test_two_calls_of_one_step_are_joined_with_the_empty_text_first(models, encoded, called):
    with capture(**models) as trace:
        run_apart(models, encoded=encoded, called=called)
    found = trace.tensors
    assert found["tokens/ids"].tolist() == [TEXTS["empty"], TEXTS["other"]]
    np.testing.assert_array_equal(found["text_encoder/context"], found["text_encoder/text_model.final_layer_norm"])
    assert [name for name in found if name.endswith("/time")] == ["steps/000/time", "steps/001/time"]
    assert found["steps/000/input"].shape == (1, 1, 2, 3)
    assert found["steps/000/unet/conv_in"].shape == found["steps/001/prediction"].shape == (2, 1, 2, 3)
    assert "steps/001/unet/conv_in" not in found
    assert trace.notes == ()


@pytest.mark.parametrize("called", [("words", "other"), ("other", "words")])
def test_of_two_texts_with_words_the_one_encoded_last_is_negative(models, called):
    models["unet"] = ByText()
    with capture(**models) as trace:
        run_apart(models, encoded=("other", "words"), called=called)
    assert trace.tensors["tokens/ids"].tolist() == [TEXTS["words"], TEXTS["other"]]
    np.testing.assert_array_equal(trace.tensors["text_encoder/context"][:, 1, 0], [5.5, 3.5])
    sums = trace.tensors["text_encoder/context"].sum(axis=(1, 2))
    np.testing.assert_array_equal(trace.tensors["steps/001/prediction"][:, 0, 0, 0], sums.astype(np.float32))
    assert len(trace.notes) == 1
    assert "encoded last" in trace.notes[0]


def test_where_the_texts_are_not_seen_the_first_call_is_the_negative_one(models):
    with capture(unet=(unet := ByText())) as trace:
        run_apart({**models, "unet": unet}, encoded=("other", "words"), called=("words", "other"))
    context = trace.tensors["text_encoder/context"]
    assert context[:, 1, 0].tolist() == [5.5, 3.5]
    assert trace.tensors["steps/000/prediction"][:, 0, 0, 0].tolist() == context.sum(axis=(1, 2)).tolist()
    assert len(trace.notes) == 1
    assert "first call" in trace.notes[0]


def test_a_program_that_stops_leaves_what_it_had(models):
    with pytest.raises(ZeroDivisionError), capture(**models) as trace:
        run(models, trace, steps=1)
        raise ZeroDivisionError
    assert "steps/000/prediction" in trace.tensors


def test_notes_are_kept_in_the_file(models, tmp_path):
    with capture(unet=models["unet"]) as trace:
        run_apart(models, encoded=("other", "words"), called=("words", "other"))
    write_trace(tmp_path / "theirs.safetensors", trace)
    assert read_trace(tmp_path / "theirs.safetensors").notes == trace.notes != ()


@pytest.mark.parametrize("error", [None, ValueError])
def test_the_hooks_are_gone_after_the_block(models, error):
    try:
        with capture(**models) as trace:
            assert all(model.hooks for model in models.values())
            if error is not None:
                raise error
            run(models, trace)
    except ValueError:
        pass
    assert [model.hooks for model in models.values()] == [0, 0, 0]


def test_what_is_kept_is_a_copy():
    x = Tensor(np.zeros(2, np.float32))
    kept = host(x)
    x.x += 1.0
    assert kept.tolist() == [0.0, 0.0]
