"""The losses against loops written from their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refdiff.core.params import flatten, tree
from refdiff.diffusion.prediction import DENOISED, epsilon_from_denoised, v_from_denoised
from refdiff.models import clip_text, unet, vae
from refdiff.training.losses import TARGETS, diffusion_loss, noised, vae_loss
from tests.models.examples import normal, random_params
from tests.training.examples import TEXT, UNET, VAE

ALPHAS = np.array([0.9999, 0.5, 0.02])
TASK_WEIGHTS = random_params({"unet": unet.declare(UNET), "text_encoder": clip_text.declare(TEXT)}, np.float64)
AUTOENCODER = random_params(vae.declare(VAE), np.float64)


@pytest.mark.parametrize("prediction_type", TARGETS)
def test_a_right_prediction_denoises_to_the_picture(prediction_type):
    x0, noise = normal(3, 4, 2, 5, dtype=np.float64), normal(3, 4, 2, 5, dtype=np.float64, seed=2)
    noisy, target = noised(x0, noise, ALPHAS, prediction_type=prediction_type)
    back = {"epsilon": epsilon_from_denoised, "v_prediction": v_from_denoised}[prediction_type]
    for k, alpha in enumerate(ALPHAS):
        a, s = math.sqrt(alpha), math.sqrt(1.0 - alpha)
        np.testing.assert_allclose(DENOISED[prediction_type](noisy[k], target[k], a, s), x0[k], atol=1e-12)
        np.testing.assert_allclose(back(noisy[k], x0[k], a, s), target[k], atol=1e-10)


def test_noise_keeps_the_deviation():
    x0, noise = normal(3, 4, 40, 40), normal(3, 4, 40, 40, seed=2)
    for prediction_type in TARGETS:
        noisy, target = noised(x0, noise, ALPHAS.astype(np.float32), prediction_type=prediction_type)
        assert noisy.dtype == target.dtype == np.float32
        np.testing.assert_allclose(noisy.std(axis=(1, 2, 3)), 1.0, atol=0.05)
        np.testing.assert_allclose(target.std(axis=(1, 2, 3)), 1.0, atol=0.05)


def test_noised_in_numbers():
    x0, noise = np.full((1, 1, 1, 1), 2.0), np.full((1, 1, 1, 1), 10.0)
    noisy, target = noised(x0, noise, np.array([0.64]), prediction_type="v_prediction")
    assert (noisy.item(), target.item()) == (pytest.approx(0.8 * 2 + 0.6 * 10), pytest.approx(0.8 * 10 - 0.6 * 2))
    assert noised(x0, noise, np.array([0.64]), prediction_type="epsilon")[1].item() == 10.0


def test_an_unknown_prediction_is_refused():
    with pytest.raises(KeyError):
        noised(normal(3, 4, 2, 5), normal(3, 4, 2, 5), ALPHAS, prediction_type="flow")


def diffusion_inputs() -> tuple:
    noisy, target = normal(2, 4, 4, 6, dtype=np.float64), normal(2, 4, 4, 6, dtype=np.float64, seed=2)
    ids = np.array([[3, 8, 49, 49], [7, 11, 2, 49]])
    return noisy, target, np.array([3, 700]), ids, np.abs(normal(2, 1, 4, 6, dtype=np.float64, seed=3))


def test_diffusion_loss_is_a_weighted_mean_of_squares():
    noisy, target, t, ids, weight = diffusion_inputs()
    context, _ = clip_text.clip_text(TASK_WEIGHTS.text_encoder, TEXT, ids)
    prediction = unet.unet(TASK_WEIGHTS.unet, UNET, noisy, t, context)
    witness = 0.0
    for (b, c, i, j), p in np.ndenumerate(prediction):
        witness += weight[b, 0, i, j] * (p - target[b, c, i, j]) ** 2
    loss = diffusion_loss(TASK_WEIGHTS, UNET, TEXT, noisy, target, t, ids, weight)
    assert float(loss) == pytest.approx(witness / prediction.size, rel=1e-12)


def test_a_pixel_without_weight_does_not_count():
    noisy, target, t, ids, weight = diffusion_inputs()
    weight = weight.copy()
    weight[1, 0, 2, 3] = 0.0
    other = target.copy()
    other[1, :, 2, 3] += 100.0
    losses = [diffusion_loss(TASK_WEIGHTS, UNET, TEXT, noisy, wanted, t, ids, weight) for wanted in (target, other)]
    assert losses[0] == losses[1]


def test_the_text_has_a_part_in_the_loss():
    noisy, target, t, ids, weight = diffusion_inputs()
    losses = {
        float(diffusion_loss(TASK_WEIGHTS, UNET, TEXT, noisy, target, t, words, weight)) for words in (ids, ids[::-1], ids * 0)
    }
    assert len(losses) == 3


def vae_inputs() -> tuple:
    images, noise = np.tanh(normal(2, 3, 8, 12, dtype=np.float64)), normal(2, 4, 4, 6, dtype=np.float64, seed=2)
    return images, noise, np.abs(normal(2, 1, 8, 12, dtype=np.float64, seed=3))


@pytest.mark.parametrize(("mse_weight", "kl_weight"), [(0.0, 0.0), (4.0, 0.0), (0.0, 0.3), (4.0, 0.3)])
def test_vae_loss(mse_weight, kl_weight):
    images, noise, weight = vae_inputs()
    mu, logvar = vae.encode(AUTOENCODER, VAE, images)
    z = np.array([m + math.exp(v / 2) * e for m, v, e in zip(mu.flat, logvar.flat, noise.flat, strict=True)]).reshape(mu.shape)
    decoded = vae.decode(AUTOENCODER, VAE, z)
    mae = mse = kl = 0.0
    for (b, c, i, j), x in np.ndenumerate(images):
        error = decoded[b, c, i, j] - x
        mae += weight[b, 0, i, j] * abs(error) / images.size
        mse += weight[b, 0, i, j] * error * error / images.size
    for m, v in zip(mu.flat, logvar.flat, strict=True):
        kl += -0.5 * (1 + v - m * m - math.exp(v)) / mu.size  # Kingma, Welling 2013, appendix B
    assert min(mae, mse, kl) > 0.01
    loss = vae_loss(AUTOENCODER, VAE, images, noise, weight, mse_weight=mse_weight, kl_weight=kl_weight)
    assert float(loss) == pytest.approx(mae + mse_weight * mse + kl_weight * kl, rel=1e-12)


def test_losses_are_scalars_of_the_precision_of_their_inputs():
    params = tree({key: value.astype(np.float32) for key, value in flatten(AUTOENCODER).items()})
    images, noise, weight = (a.astype(np.float32) for a in vae_inputs())
    loss = vae_loss(params, VAE, images, noise, weight, mse_weight=4.0, kl_weight=1e-4)
    assert loss.shape == () and loss.dtype == np.float32
    double = vae_loss(AUTOENCODER, VAE, *vae_inputs(), mse_weight=4.0, kl_weight=1e-4)
    assert float(loss) == pytest.approx(float(double), rel=1e-5)
