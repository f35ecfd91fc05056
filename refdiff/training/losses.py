"""What the networks are trained to make small. Every loss takes parameters that may be recorded and gives a scalar."""

from __future__ import annotations

from typing import Any

from refdiff.core.params import Params
from refdiff.models import clip_text, unet, vae
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.ops import absolute, exp, mean, square
from refdiff.xp import Array, array_module


def vae_loss(
    params: Params,
    config: VAEConfig,
    images: Array,
    noise: Array,
    pixel_weight: Array,
    *,
    mse_weight: float,
    kl_weight: float,
) -> Any:
    """How badly the autoencoder reconstructs, and how far its posterior is from a standard normal.

    Math: mean(w |x' - x|) + mse_weight mean(w (x' - x)^2) + kl_weight mean(KL), x' = decode(mean + e^(logvar/2) noise),
    KL = (mean^2 + e^logvar - 1 - logvar) / 2 for each latent number
    Shapes: images [B,3,H,W] in [-1,1], noise [B,L,h,w], pixel_weight [B,1,H,W] -> []
    Source: Kingma, Welling 2013 (arXiv 1312.6114), appendix B; Rombach et al. 2022 (arXiv 2112.10752), section 3.1
    """
    mu, logvar = vae.encode(params, config, images)
    reconstruction = vae.decode(params, config, vae.posterior_sample(mu, logvar, noise))
    kl = (square(mu) + exp(logvar) - 1.0 - logvar) * 0.5
    return pixel_loss(reconstruction, images, pixel_weight, mse_weight=mse_weight) + mean(kl) * kl_weight


def pixel_loss(reconstruction: Array, images: Array, pixel_weight: Array, *, mse_weight: float) -> Any:
    """How far pictures are from what they should be.

    Math: mean(w |x' - x|) + mse_weight mean(w (x' - x)^2)
    Shapes: [B,3,H,W], [B,3,H,W], [B,1,H,W] -> []
    """
    error = reconstruction - images
    return mean(absolute(error) * pixel_weight) + mean(square(error) * pixel_weight) * mse_weight


def diffusion_loss(
    params: Params,
    config: UNetConfig,
    text_config: CLIPTextConfig,
    noisy: Array,
    target: Array,
    t: Array,
    ids: Array,
    weight: Array,
) -> Any:
    """How badly the U-Net, given the text, predicts `target` in a noisy latent; the text encoder is trained with it.

    `params` holds the two networks under "unet" and "text_encoder"; `noised` makes the noisy latent and its target.

    Math: mean(w (network(noisy, t, text) - target)^2)
    Shapes: noisy and target [B,C,h,w], t [B] integers, ids [B,T] integers, weight [B,1,h,w] -> []
    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equation 14
    """
    context, _ = clip_text.clip_text(params.text_encoder, text_config, ids)
    prediction = unet.unet(params.unet, config, noisy, t, context)
    return mean(square(prediction - target) * weight)


TARGETS = {
    "epsilon": lambda x0, noise, a, s: noise,
    "v_prediction": lambda x0, noise, a, s: a * noise - s * x0,
}


def noised(x0: Array, noise: Array, alpha_cumprod: Array, *, prediction_type: str) -> tuple[Array, Array]:
    """The noisy latents and what the network should predict in them, for a^2 = alpha_cumprod and s^2 = 1 - a^2.

    Math: a x0 + s noise; noise itself (epsilon), or a noise - s x0 (v_prediction)
    Shapes: [B,C,h,w], [B,C,h,w], [B] -> [B,C,h,w] twice
    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equation 4; Salimans, Ho 2022 (arXiv 2202.00512), appendix D
    """
    xp = array_module(x0)
    a = xp.sqrt(alpha_cumprod)[:, None, None, None]
    s = xp.sqrt(1.0 - alpha_cumprod)[:, None, None, None]
    return a * x0 + s * noise, TARGETS[prediction_type](x0, noise, a, s)
