"""What inspect says about folders, right and wrong, without reading a value."""

import numpy as np
import pytest

from refdiff.checkpoints import CheckpointError
from refdiff.checkpoints.configurations import KINDS
from refdiff.checkpoints.files import read_json, write_json
from refdiff.checkpoints.inspect import inspect
from tests.checkpoints.folders import VAE, write_by_hand, write_config


def test_a_whole_checkpoint(tiny):
    report = inspect(tiny)
    assert report.family == "Stable Diffusion 1.x in other sizes" and report.pipeline == "StableDiffusionPipeline"
    assert {c.name: c.class_name for c in report.components} == {
        "text_encoder": "CLIPTextModel",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    }
    assert report.others == {"scheduler": "DDIMScheduler", "tokenizer": "CLIPTokenizer"}
    assert report.scheduler["beta_schedule"] == "scaled_linear"
    assert report.parameters == 1_200_568 + 792_964 + 280_071 and report.size == 4 * report.parameters
    assert report.problems == ()
    unet = next(c for c in report.components if c.name == "unet")
    assert unet.dtypes == {"F32": unet.tensors} and unet.files == ("diffusion_pytorch_model.safetensors",)
    assert unet.summary["heads"] == (2, 2, 2) and unet.summary["block_out_channels"] == (16, 32, 48)
    assert unet.shapes["conv_in.weight"] == (16, 4, 3, 3)
    assert not (unet.missing or unet.unknown or unet.misshapen or unet.twice or unet.ignored)


def test_the_sizes_of_sd15_are_called_by_their_name(tmp_path):
    write_json(
        tmp_path / "model_index.json",
        {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
    )
    write_config(tmp_path / "unet", KINDS["sd15"]["unet"])
    report = inspect(tmp_path)
    assert report.family == "Stable Diffusion 1.x"
    assert "holds no weights" in report.problems[0] and report.components[0].class_name == "UNet2DConditionModel"


def test_what_does_not_fit_is_listed_in_full(text_folder, text_weights):
    weights = {key: value for key, value in text_weights.items() if "layers.1.mlp" not in key}
    weights["text_model.final_layer_norm.bias"] = np.zeros(9, np.float16)
    weights["logit_scale"] = np.zeros((), np.float32)
    weights["embeddings.position_ids"] = np.arange(5)[None]
    weights["final_layer_norm.weight"] = np.ones(6, np.float32)
    write_by_hand(text_folder / "text_encoder" / "model.safetensors", weights)
    report = inspect(text_folder / "text_encoder")
    assert report.family == "one component: CLIPTextModel" and len(report.components) == 1
    component = report.components[0]
    assert component.missing == tuple(key for key in text_weights if "layers.1.mlp" in key) and len(component.missing) == 4
    assert component.unknown == ("logit_scale",) and component.misshapen == ("text_model.final_layer_norm.bias",)
    assert component.twice == ("final_layer_norm.weight",) and component.ignored == ("embeddings.position_ids",)
    assert component.dtypes == {"F32": len(weights) - 2, "F16": 1, "I64": 1}
    assert component.parameters == sum(v.size for v in weights.values()) - 5  # a buffer is no parameter
    assert "another spelling" in component.problem and report.problems == (component.problem,)


def test_values_are_not_read(vae_folder):
    path = vae_folder / "vae" / "diffusion_pytorch_model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[: -4 * 10] + b"\xff" * 40)  # NaN
    assert inspect(vae_folder / "vae").problems == ()


def test_problems_of_components_are_told_not_raised(tiny, tmp_path):
    index = read_json(tiny / "model_index.json")
    write_json(tmp_path / "model_index.json", {**index, "_class_name": "OtherPipeline"})
    write_config(tmp_path / "unet", {"_class_name": "UNet2DConditionModel", "class_embed_type": "timestep"})
    write_config(tmp_path / "vae", VAE)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0")
    report = inspect(tmp_path)
    problems = {component.name: component.problem for component in report.components}
    assert "has no component 'text_encoder'" in problems["text_encoder"]
    assert "class_embed_type" in problems["unet"] and "is truncated" in problems["vae"]
    assert report.family == "unknown: OtherPipeline" and report.parameters == 0 and report.scheduler == {}


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no model_index.json: it is not a checkpoint"):
        inspect(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        inspect(tmp_path / "nowhere")
