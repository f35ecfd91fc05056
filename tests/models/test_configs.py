"""config.json is read strictly: what is not understood is refused by name, what is understood survives a round trip."""

from __future__ import annotations

import json
import math

import pytest

from refdiff.core.architecture import find
from refdiff.core.params import flatten_declaration
from refdiff.errors import BadRequest
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from tests.models.examples import CLIPS, UNETS, VAES

EXAMPLES = [
    *(("UNet2DConditionModel", UNetConfig, config) for config in UNETS.values()),
    *(("AutoencoderKL", VAEConfig, config) for config in VAES.values()),
    *(("CLIPTextModel", CLIPTextConfig, config) for config in CLIPS.values()),
]


@pytest.mark.parametrize(("class_name", "kind", "data"), EXAMPLES)
def test_survives_a_round_trip_through_json(class_name, kind, data):
    config = kind.from_dict(data)
    architecture = find(class_name)
    again = json.loads(json.dumps(architecture.config_to_dict(config)))
    assert architecture.config_from_dict(again) == config
    assert again.get("_class_name", again.get("architectures")) in (class_name, [class_name])
    assert {key: again[key] for key in data} == data
    hash(config)


@pytest.mark.parametrize(("class_name", "kind", "data"), EXAMPLES[::3])
def test_an_unknown_option_is_named(class_name, kind, data):
    with pytest.raises(BadRequest, match=f"{kind.__name__}: unknown option use_magic = True"):
        kind.from_dict({**data, "use_magic": True})
    assert kind.from_dict({**data, "_note": "private keys are not options"}) == kind.from_dict(data)


REQUIRED = [
    (UNetConfig, UNETS["two levels"], "block_out_channels"),
    (UNetConfig, UNETS["two levels"], "attention_head_dim"),
    (VAEConfig, VAES["two levels"], "latent_channels"),
    (CLIPTextConfig, CLIPS["gelu"], "vocab_size"),
    (CLIPTextConfig, CLIPS["gelu"], "layer_norm_eps"),
]


@pytest.mark.parametrize(("kind", "data", "name"), REQUIRED)
def test_a_missing_option_is_named(kind, data, name):
    with pytest.raises(BadRequest, match=f"{kind.__name__}: option {name} is missing"):
        kind.from_dict({key: value for key, value in data.items() if key != name})


UNSUPPORTED = [
    (UNetConfig, UNETS, "act_fn", "gelu"),
    (UNetConfig, UNETS, "use_linear_projection", True),
    (UNetConfig, UNETS, "class_embed_type", "timestep"),
    (UNetConfig, UNETS, "addition_embed_type", "text_time"),
    (UNetConfig, UNETS, "dropout", 0.1),
    (UNetConfig, UNETS, "resnet_time_scale_shift", "scale_shift"),
    (UNetConfig, UNETS, "transformer_layers_per_block", [1, 2]),
    (UNetConfig, UNETS, "mid_block_type", None),
    (UNetConfig, UNETS, "down_block_types", ["AttnDownBlock2D", "DownBlock2D"]),
    (UNetConfig, UNETS, "up_block_types", ["UpBlock2D", "SkipUpBlock2D"]),
    (VAEConfig, VAES, "act_fn", "relu"),
    (VAEConfig, VAES, "use_quant_conv", False),
    (VAEConfig, VAES, "shift_factor", 0.1),
    (VAEConfig, VAES, "latents_mean", [0.0]),
    (VAEConfig, VAES, "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
    (CLIPTextConfig, CLIPS, "hidden_act", "relu"),
    (CLIPTextConfig, CLIPS, "attention_dropout", 0.1),
]


@pytest.mark.parametrize(("kind", "examples", "name", "value"), UNSUPPORTED)
def test_a_value_that_is_not_written_out_is_named(kind, examples, name, value):
    with pytest.raises(BadRequest, match=f"{kind.__name__}: option {name} ") as refusal:
        kind.from_dict({**next(iter(examples.values())), name: value})
    assert "\n" not in str(refusal.value)


WRONG_KIND = [
    (UNetConfig, UNETS, "in_channels", "4"),
    (UNetConfig, UNETS, "in_channels", 4.0),
    (UNetConfig, UNETS, "in_channels", True),
    (UNetConfig, UNETS, "layers_per_block", 0),
    (UNetConfig, UNETS, "layers_per_block", [2, 2]),
    (UNetConfig, UNETS, "norm_num_groups", None),
    (UNetConfig, UNETS, "block_out_channels", [8, "16"]),
    (UNetConfig, UNETS, "block_out_channels", []),
    (UNetConfig, UNETS, "down_block_types", "DownBlock2D"),
    (UNetConfig, UNETS, "attention_head_dim", 0),
    (UNetConfig, UNETS, "attention_head_dim", -2),
    (UNetConfig, UNETS, "attention_head_dim", [2, "4"]),
    (UNetConfig, UNETS, "attention_head_dim", [2, 0]),
    (UNetConfig, UNETS, "attention_head_dim", None),
    (UNetConfig, UNETS, "flip_sin_to_cos", 1),
    (UNetConfig, UNETS, "norm_eps", "1e-5"),
    (UNetConfig, UNETS, "norm_eps", float("nan")),
    (UNetConfig, UNETS, "norm_eps", -1.0),
    (VAEConfig, VAES, "scaling_factor", None),
    (VAEConfig, VAES, "scaling_factor", 0),
    (VAEConfig, VAES, "down_block_types", "DownEncoderBlock2D"),
    (CLIPTextConfig, CLIPS, "layer_norm_eps", None),
    (CLIPTextConfig, CLIPS, "hidden_act", ["gelu"]),
]


@pytest.mark.parametrize(("kind", "examples", "name", "value"), WRONG_KIND)
def test_a_value_of_the_wrong_kind_is_named(kind, examples, name, value):
    with pytest.raises(BadRequest, match=f"{kind.__name__}: option {name} "):
        kind.from_dict({**next(iter(examples.values())), name: value})


INCONSISTENT = [
    (UNetConfig, UNETS, {"block_out_channels": [8, 18]}, "18 channels .* norm_num_groups = 4"),
    (UNetConfig, UNETS, {"block_out_channels": [8, 16, 16]}, "down_block_types names 2 blocks"),
    (UNetConfig, UNETS, {"up_block_types": ["UpBlock2D"]}, "up_block_types names 1 blocks"),
    (UNetConfig, UNETS, {"attention_head_dim": [2]}, "attention_head_dim"),
    (UNetConfig, UNETS, {"attention_head_dim": 3}, "8 channels cannot be split into 3 attention heads"),
    (UNetConfig, UNETS, {"block_out_channels": [7, 14], "norm_num_groups": 7, "attention_head_dim": 7}, "even"),
    (VAEConfig, VAES, {"block_out_channels": [8, 18]}, "18 channels .* norm_num_groups = 4"),
    (VAEConfig, VAES, {"block_out_channels": [8, 16, 16]}, "differ in length"),
    (CLIPTextConfig, CLIPS, {"num_attention_heads": 5}, "24 .* 5 attention heads"),
]


@pytest.mark.parametrize(("kind", "examples", "change", "message"), INCONSISTENT)
def test_options_that_contradict_each_other_are_refused(kind, examples, change, message):
    with pytest.raises(BadRequest, match=message):
        kind.from_dict({**next(iter(examples.values())), **change})


# The config.json files of Stable Diffusion 1.5 as they were published, with all that old files leave out.
SD15_UNET = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
SD15_VAE = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
    "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
SD15_TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
    "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
    "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12, "num_hidden_layers": 12,
    "pad_token_id": 1, "projection_dim": 768, "torch_dtype": "float32", "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}  # fmt: skip


@pytest.mark.parametrize(
    ("class_name", "data", "tensors", "numbers"),
    [
        ("UNet2DConditionModel", SD15_UNET, 686, 859_520_964),
        ("AutoencoderKL", SD15_VAE, 248, 83_653_863),
        ("CLIPTextModel", SD15_TEXT, 196, 123_060_480),
    ],
)
def test_stable_diffusion_15_has_its_known_size(class_name, data, tensors, numbers):
    architecture = find(class_name)
    leaves = flatten_declaration(architecture.declare(architecture.config_from_dict(data)))
    assert (len(leaves), sum(math.prod(leaf.shape) for leaf in leaves.values())) == (tensors, numbers)


def test_what_an_autoencoder_config_leaves_out():
    config = VAEConfig.from_dict(SD15_VAE)
    assert (config.scaling_factor, config.downscale) == (0.18215, 8)
    assert UNetConfig.from_dict(SD15_UNET).heads == (8, 8, 8, 8)
    assert UNetConfig.from_dict(UNETS["a list of heads"]).heads == (4, 6, 3)
