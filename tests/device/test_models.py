"""Every network on the simulated device: NumPy's numbers, and nothing crosses while it runs."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.params import flatten, map_arrays, tree
from refdiff.core.tap import observe
from refdiff.core.tape import value_and_grad
from refdiff.models.clip_text import CLIPTextConfig, clip_text
from refdiff.models.unet import UNetConfig, declare, unet
from refdiff.models.vae import VAEConfig, decode, encode, posterior_sample
from tests.device.compare import assert_same, on_device, run_on_device
from tests.device.simulated import SimulatedArray, count_transfers
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params, token_ids
from tests.models.networks import NETWORKS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, dtype):
    network = NETWORKS[name]
    params, inputs = network.weights(dtype), network.inputs(dtype)
    there = map_arrays(on_device, params)
    device, crossed = run_on_device(lambda *args: network.run(there, *args), *inputs)
    assert_same(device, network.run(params, *inputs))
    assert crossed.total == 0, crossed.events


def test_one_time_for_all_images():
    config, network = UNetConfig.from_dict(UNETS["two levels"]), NETWORKS["unet, two levels"]
    params, (x, _, context) = network.weights(np.float32), network.inputs(np.float32)
    t = np.array(500, np.float32)
    there = map_arrays(on_device, params)
    device, crossed = run_on_device(lambda *args: unet(there, config, *args), x, t, context)
    assert_same(device, unet(params, config, x, t, context))
    assert crossed.total == 0, crossed.events


def test_posterior_sample():
    mean, logvar, noise = (normal(2, 4, 3, 5, seed=i) for i in range(3))
    device, crossed = run_on_device(posterior_sample, mean, logvar, noise)
    assert_same(device, posterior_sample(mean, logvar, noise))
    assert crossed.total == 0


def test_gradients_of_all_networks_together():
    unet_config = UNetConfig.from_dict({**UNETS["two levels"], "cross_attention_dim": CLIPS["quick gelu"]["hidden_size"]})
    vae_config, text_config = VAEConfig.from_dict(VAES["two levels"]), CLIPTextConfig.from_dict(CLIPS["quick gelu"])
    names = {"encode": "vae encoder, two levels", "decode": "vae decoder, two levels", "text": "clip, quick gelu"}
    parts = {part: flatten(NETWORKS[name].weights(np.float64)) for part, name in names.items()}
    parts["unet"] = flatten(random_params(declare(unet_config), np.float64))
    params = {f"{part}.{key}": value for part, flat in parts.items() for key, value in flat.items()}

    def loss(variables, image, ids, times, noise):
        p = tree(variables)
        latent = posterior_sample(*encode(p.encode, vae_config, image), noise)
        context, pooled = clip_text(p.text, text_config, ids)
        prediction = unet(p.unet, unet_config, latent, times, context)
        return prediction.mean() + decode(p.decode, vae_config, latent).mean() + pooled.mean()

    image, noise = (normal(*shape, dtype=np.float64) for shape in ((2, 3, 6, 10), (2, 4, 3, 5)))
    inputs = (image, token_ids(11), np.array([3.0, 981.0]), noise)
    value, gradients = value_and_grad(loss, params, *inputs)
    there, crossed = run_on_device(lambda p, *a: value_and_grad(loss, p, *a), params, *inputs)
    assert_same(there[0], np.asarray(value))
    for key, gradient in gradients.items():
        assert type(there[1][key]) is SimulatedArray, key
        np.testing.assert_allclose(there[1][key].get(), gradient, rtol=1e-9, atol=1e-12, err_msg=key)
    assert crossed.total == 0, crossed.events


def test_taps_show_device_arrays():
    config, network = UNetConfig.from_dict(UNETS["two levels"]), NETWORKS["unet, two levels"]
    params, inputs = map_arrays(on_device, network.weights(np.float32)), on_device(network.inputs(np.float32))
    seen = {}
    with count_transfers() as crossed, observe(lambda name, x: seen.update({name: type(x)})):
        unet(params, config, *inputs)
    assert len(seen) > 10 and set(seen.values()) == {SimulatedArray}
    assert crossed.total == 0
