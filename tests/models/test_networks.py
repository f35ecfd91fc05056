"""What holds for every network: every weight counts, nothing is written into, precision is kept, images stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.params import Params, flatten, flatten_declaration, tree
from refdiff.core.primitive import MODES, PRIMITIVES, Primitive, mode
from refdiff.core.tap import observe
from refdiff.core.tape import value_and_grad
from tests.models.examples import normal
from tests.models.networks import NETWORKS
from tests.ops.arrays import arrays_in

every_network = pytest.mark.parametrize("name", NETWORKS)
every_mode = pytest.mark.parametrize("kernels", MODES)

# A bias on the keys adds the same number to all scores of a query, and softmax does not see it.
WITHOUT_EFFECT = ("self_attn.k_proj.bias", "attentions.0.to_k.bias")


@every_network
def test_every_declared_parameter_counts_and_its_gradient_is_right(name):
    network = NETWORKS[name]
    params, inputs = flatten(network.weights(np.float64)), network.inputs(np.float64)
    assert list(params) == list(flatten_declaration(network.declaration))

    def loss(weights):
        outputs = network.run(tree(weights), *inputs)
        total = (outputs[0] * normal(*outputs[0].shape, dtype=np.float64, seed=7)).mean()
        return total if len(outputs) == 1 else total + (outputs[1] * outputs[1]).mean()

    _, grads = value_and_grad(loss, params)
    for key, grad in grads.items():
        size = float(np.abs(grad).max())
        assert (size < 1e-13) if key.endswith(WITHOUT_EFFECT) else (size > 1e-7), (key, size)
    u = {key: normal(*value.shape, dtype=np.float64, seed=8) for key, value in params.items()}
    h = 1e-6
    ahead, behind = (value_and_grad(loss, {k: v + s * u[k] for k, v in params.items()})[0] for s in (h, -h))
    slope = sum(float((grads[key] * u[key]).sum()) for key in params)
    assert (ahead - behind) / (2 * h) == pytest.approx(slope, rel=1e-5)


@every_network
@every_mode
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_is_kept_in_every_operation(name, kernels, dtype, monkeypatch):
    network = NETWORKS[name]
    compute, seen = Primitive.compute, set()

    def watched(self, *args, **constants):
        out = compute(self, *args, **constants)
        floats = {array.dtype for array in [*arrays_in(args), out] if array.dtype.kind == "f"}
        assert floats == {np.dtype(dtype)}, self.name
        seen.add(self.name)
        return out

    monkeypatch.setattr(Primitive, "compute", watched)
    taps = []
    with mode(kernels), observe(lambda name, x: taps.append(x.dtype)):
        outputs = network.run(network.weights(dtype), *network.inputs(dtype))
    assert {out.dtype for out in outputs} == {np.dtype(dtype)} == set(taps)
    assert seen <= set(PRIMITIVES)
    assert len(seen) > 3


@every_network
@every_mode
def test_float32_is_float64_but_for_rounding(name, kernels):
    network = NETWORKS[name]
    with mode(kernels):
        single = network.run(network.weights(np.float32), *network.inputs(np.float32))
    double = network.run(network.weights(np.float64), *network.inputs(np.float64))
    for a, b in zip(single, double, strict=True):
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


@every_network
def test_images_and_texts_do_not_mix(name):
    network = NETWORKS[name]
    params, inputs = network.weights(np.float64), network.inputs(np.float64)
    together = network.run(params, *inputs)
    for row in range(2):
        alone = network.run(params, *(x[row : row + 1] if i in network.batch_inputs else x for i, x in enumerate(inputs)))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[row : row + 1], b, rtol=1e-10, atol=1e-12)


@every_network
def test_any_memory_layout_gives_the_same(name):
    network = NETWORKS[name]
    params, inputs = network.weights(np.float64), network.inputs(np.float64)
    turned = [x.T.copy().T for x in inputs]
    turned[0] = turned[0][::-1].copy()[::-1]
    for a, b in zip(network.run(params, *inputs), network.run(params, *turned), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def node_paths(params: Params) -> set[str]:
    """The path of every node of the tree."""
    children = [child for child in params if isinstance(child, Params)]
    return {params.path}.union(*(node_paths(child) for child in children))


@every_network
def test_taps_are_named_after_the_parameters_that_made_them(name):
    network = NETWORKS[name]
    params, names = network.weights(np.float32), []
    with observe(lambda name, x: names.append(name)):
        network.run(params, *network.inputs(np.float32))
    assert len(names) == len(set(names))
    without_parameters = {"time_proj", *(name for name in names if name.endswith(".mlp.activation_fn"))}
    assert set(names) - without_parameters <= node_paths(params)
    blocks = {path for path in node_paths(params) if _is_tapped(path)}
    assert blocks <= set(names), blocks - set(names)


def _is_tapped(path: str) -> bool:
    """A block, a resnet, an attention or a layer: the places at which two implementations are compared."""
    parent, _, last = path.rpartition(".")
    lists = (
        "down_blocks",
        "up_blocks",
        "resnets",
        "attentions",
        "transformer_blocks",
        "layers",
        "upsamplers",
        "downsamplers",
    )
    inside_vae = path.startswith(("encoder.", "decoder."))
    listed = last.isdigit() and parent.split(".")[-1] in (lists[:-2] if inside_vae else lists)
    return listed or last in ("conv_in", "mid_block", "time_embedding", "embeddings", "quant_conv", "post_quant_conv")
