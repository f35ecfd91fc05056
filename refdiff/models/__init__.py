"""The networks: each is a function of (params, config, inputs), with its parameters declared beside it."""

from refdiff.models import clip_text, unet, vae

__all__ = ["clip_text", "unet", "vae"]
