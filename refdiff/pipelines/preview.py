"""What latents look like without a decoder: a linear map from their channels to colours, one colour for each latent pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from refdiff.errors import BadRequest
from refdiff.pipelines.text_to_image import Pipeline, levels

if TYPE_CHECKING:
    from PIL.Image import Image

# Of the autoencoder of Stable Diffusion 1.x and 2.x: colours in [-1,1] of each channel.
# Source: ComfyUI's comfy/latent_formats.py, SD15
SD1_COLOURS = ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177))
SD1_SCALING = 0.18215


def colours_of(pipe: Pipeline) -> np.ndarray:
    """The colour of each channel, and last what is added to all: the model's own ("latent_colours" in its refdiff.json).

    Shapes: -> [C+1,3]
    Raises: BadRequest for a model that has none, unless its autoencoder is one of Stable Diffusion 1.x
    """
    channels, scaling = pipe.vae.config.latent_channels, pipe.vae.config.scaling_factor
    told = pipe.defaults["latent_colours"]
    if told:
        try:
            own = np.array(told, dtype=np.float64)
        except (ValueError, TypeError):
            own = np.empty(0)
        if own.shape != (channels + 1, 3):
            raise BadRequest(
                f"refdiff.json: latent_colours are not {channels + 1} rows of 3 numbers: tools/fit_preview.py makes them"
            )
        return own
    if channels == len(SD1_COLOURS) and scaling == SD1_SCALING:
        return np.array([*SD1_COLOURS, (0.0, 0.0, 0.0)])
    raise BadRequest("this model has no latent_colours for previews: tools/fit_preview.py MODEL finds them")


def preview(pipe: Pipeline, latents: np.ndarray) -> list[Image]:
    """Pictures as large as the decoder's, of one colour for each latent pixel.

    Shapes: [B,C,h,w] -> B pictures of h f by w f
    Raises: BadRequest as colours_of
    """
    from PIL import Image

    colours = colours_of(pipe)
    x = np.einsum("bchw,cr->brhw", latents, colours[:-1]) + colours[-1][:, None, None]
    small = (Image.fromarray(image) for image in levels(x))
    return [
        image.resize((image.width * pipe.downscale, image.height * pipe.downscale), Image.Resampling.NEAREST) for image in small
    ]
