"""Synthetic checkpoints: the page that defines them is right, the numbers are what it says, the folders are whole."""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.checkpoints import generator, open_component, read_safetensors
from refdiff.checkpoints.configurations import KINDS, SCHEDULER
from refdiff.checkpoints.folder import read_model_index
from refdiff.checkpoints.synthetic import declaration, write_synthetic
from refdiff.checkpoints.tensor_file import narrow_bfloat16, widen_bfloat16
from refdiff.core.params import Leaf, flatten
from refdiff.core.tap import observe
from refdiff.errors import BadRequest
from refdiff.models import clip_text, unet, vae

PAGE = (Path(__file__).parents[2] / "docs" / "synthetic_weights.md").read_text(encoding="utf-8")
PARTS = [(kind, component) for kind in KINDS for component in KINDS[kind]]


def fenced(info: str) -> str:
    """The block of the page that is fenced with these words."""
    found = re.findall(rf"^```{info}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return found[0]


def table(title: str) -> list[list[str]]:
    """The rows, without the title row, of the table of the page whose title row begins so."""
    lines = PAGE[PAGE.index(title) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


VECTORS = table("| checkpoint | parameter | key |")
DIGESTS = table("| checkpoint | component | SHA-256 |")


def plain_python() -> dict:
    names: dict = {}
    exec(fenced("python"), names)
    return names


@pytest.mark.parametrize(("kind", "parameter", "key", "integers", "values"), VECTORS)
def test_the_values_of_the_page(kind, parameter, key, integers, values):
    component, name = parameter.split("/")
    leaf = declaration(KINDS[kind][component])[name]
    wanted = np.array([float(v) for v in values.split(", ")], np.float32)
    assert generator.key_of(0, component, name) == int(key, 16)
    assert generator.centred_integers(int(key, 16), 0, 4).tolist() == [int(n) for n in integers.split(", ")]
    np.testing.assert_array_equal(next(generator.pieces(0, component, name, leaf))[:4], wanted)
    page = plain_python()
    assert [page["value"](0, component, name, leaf.shape, i) for i in range(4)] == wanted.tolist()


def test_the_page_shows_every_role_and_every_factor():
    leaves = [(p, declaration(KINDS[k][p.split("/")[0]])[p.split("/")[1]]) for k, p, *_ in VECTORS]
    assert {leaf.init for _, leaf in leaves} == {"weight", "bias", "gain", "offset", "embedding"}
    shown = {generator.step_of(p, leaf) * leaf.fan_in**0.5 * 37837 for p, leaf in leaves if leaf.init == "weight"}
    assert {round(factor, 9) for factor in shown} == {1.0, 1.5, 2.0}


@pytest.mark.parametrize(("kind", "component"), PARTS)
def test_the_rule_of_the_page_gives_every_parameter_its_step(kind, component):
    page = plain_python()
    for name, leaf in declaration(KINDS[kind][component]).items():
        assert page["step"](name, leaf.shape) == np.float32(generator.step_of(name, leaf)), name
        is_gain = "norm" in name.split(".")[-2] and name.endswith(".weight")
        assert is_gain == (leaf.init == "gain"), name


@given(st.integers(0, 9), st.integers(0, 3), st.integers(0, 70_000))
def test_the_python_of_the_page_gives_any_element(seed, which, i):
    name, leaf = [
        ("a.conv.weight", Leaf((40_000, 2, 1), "weight")),
        ("a.norm1.weight", Leaf((80_000,), "gain")),
        ("attn1.to_q.weight", Leaf((80_000, 1), "weight")),
        ("time_embedding.linear_2.weight", Leaf((10_000, 8), "weight")),
    ][which]
    ours = generator.tensor(seed, "unet", name, leaf)
    assert ours.shape == leaf.shape and ours.dtype == np.float32
    assert ours.reshape(-1)[i] == plain_python()["value"](seed, "unet", name, leaf.shape, i)


@pytest.mark.parametrize(("kind", "component"), PARTS)
def test_the_configurations_of_the_page(kind, component):
    options = json.loads(fenced(f"json {kind}/{component}"))
    if kind == "tiny":
        options = {**json.loads(fenced(f"json sd15/{component}")), **options}
    assert options == KINDS[kind][component]
    assert json.loads(fenced("json scheduler")) == SCHEDULER


def test_the_numbers_of_parameters_of_the_page():
    for component, config in KINDS["sd15"].items():
        count = sum(int(np.prod(leaf.shape)) for leaf in declaration(config).values())
        assert f"`{component}`, {count:,} parameters" in PAGE


@pytest.mark.parametrize("component", KINDS["tiny"])
def test_the_digests_of_the_page(tiny, component):
    flat = flatten(open_component(tiny, component)[1])
    digest = hashlib.sha256(b"".join(flat[key].tobytes() for key in sorted(flat))).hexdigest()
    assert ["tiny", component, digest] in DIGESTS
    assert len(DIGESTS) == len(PARTS)


def test_the_integers_are_centred_spread_and_independent_of_their_neighbours():
    n = np.concatenate([generator.centred_integers(key, 0, generator.PIECE) for key in range(8)]).astype(np.float64)
    assert abs(n).max() <= 131070
    assert abs(n.mean()) < 4 * 37837 / n.size**0.5
    assert abs(n.std() / 37837 - 1) < 4 / (2 * n.size) ** 0.5
    assert abs(np.corrcoef(n[1:], n[:-1])[0, 1]) < 4 / n.size**0.5
    kurtosis = ((n / n.std()) ** 4).mean()
    assert abs(kurtosis - (3 - 1.2 / 4)) < 0.03  # of a sum of four uniform numbers


def test_pieces_join_without_a_seam():
    key, size = 12345, generator.PIECE
    joined = np.concatenate([generator.centred_integers(key, 0, size), generator.centred_integers(key, size, 10)])
    np.testing.assert_array_equal(joined[size - 5 : size + 5], generator.centred_integers(key, size - 5, 10))


def test_nothing_is_trivial(tiny):
    for component in KINDS["tiny"]:
        for key, value in flatten(open_component(tiny, component)[1]).items():
            assert (value == 0).mean() < 0.01 and (value == 1).mean() < 0.01, key
            assert value.size < 3 or value.std() > 0.01, key
            assert value.ndim != 4 or value.shape[2] == 1 or not np.allclose(value, value[:, :, ::-1, ::-1]), key


def test_the_folder_is_whole(tiny):
    files = {str(path.relative_to(tiny)) for path in tiny.rglob("*") if path.is_file()}
    weights = {"text_encoder/model.safetensors"} | {f"{c}/diffusion_pytorch_model.safetensors" for c in ("unet", "vae")}
    assert files == weights | {f"{c}/config.json" for c in ("text_encoder", "unet", "vae")} | {
        "model_index.json",
        "scheduler/scheduler_config.json",
    }
    assert read_model_index(tiny)["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert json.loads((tiny / "scheduler" / "scheduler_config.json").read_text()).items() >= SCHEDULER.items()
    assert sum(path.stat().st_size for path in tiny.rglob("*.safetensors")) < 10e6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrow_folder_holds_the_rounded_values(tiny, tmp_path, dtype):
    write_synthetic("tiny", tmp_path, seed=0, dtype=dtype, write_tokenizer=lambda path: None)
    halves, full = (flatten(open_component(folder, "vae")[1]) for folder in (tmp_path, tiny))
    for key, value in full.items():
        rounded = value.astype(dtype) if dtype == "float16" else widen_bfloat16(narrow_bfloat16(value))
        np.testing.assert_array_equal(halves[key], rounded)


def test_another_seed_gives_other_weights(tiny, tmp_path):
    write_synthetic("tiny", tmp_path, seed=1, dtype="float32", write_tokenizer=lambda path: None)
    other, this = (flatten(open_component(folder, "unet")[1]) for folder in (tmp_path, tiny))
    assert all((other[key] != this[key]).mean() > 0.9 for key in this)


def test_progress_grows_to_the_whole_and_the_index_comes_last(tmp_path):
    told, seen = [], []

    def write_tokenizer(path):
        seen.append((path, sorted(os.listdir(tmp_path))))

    write_synthetic("tiny", tmp_path, lambda *step: told.append(step), seed=0, dtype="float16", write_tokenizer=write_tokenizer)
    written = [done for done, _ in told]
    assert written == sorted(written) and told[-1] == (4547206, 4547206) and {total for _, total in told} == {4547206}
    assert seen == [(tmp_path / "tokenizer", ["text_encoder", "unet", "vae"])]


@pytest.mark.parametrize(
    ("kind", "dtype", "words"),
    [
        ("sd16", "float32", 'unknown synthetic checkpoint "sd16": choose one of sd15, tiny'),
        ("tiny", "float31", 'unknown dtype "float31": choose one of float64, float32'),
        ("tiny", "float32", "is there already and not empty: choose a new folder"),
    ],
)
def test_a_wrong_request_writes_nothing(tmp_path, kind, dtype, words):
    (tmp_path / "precious").write_text("")
    with pytest.raises(BadRequest, match=words):
        write_synthetic(kind, tmp_path, seed=0, dtype=dtype, write_tokenizer=lambda path: None)
    assert os.listdir(tmp_path) == ["precious"]


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path, there, failure):
    folder = tmp_path / "new"
    if there:
        folder.mkdir()

    def fail(path):
        assert (folder / "unet").is_dir()
        raise failure

    with pytest.raises(failure):
        write_synthetic("tiny", folder, seed=0, dtype="float16", write_tokenizer=fail)
    assert (list(folder.iterdir()) == []) if there else not folder.exists()


def activations(tiny, case) -> list[tuple[str, np.ndarray]]:
    """What every block of the tiny networks hands on, and the end results."""
    rng, seen = np.random.default_rng(0), []
    latents = rng.standard_normal((2, 4, 16, 12)).astype(np.float32)
    with observe(lambda name, x: seen.append((name, x))):
        if case in ("text", "unet"):
            config, params = open_component(tiny, "text_encoder")
            ids = np.full((2, 77), 49407)
            ids[:, :9] = rng.integers(0, 49000, (2, 9))
            context, _ = clip_text.clip_text(params, config, ids)
            seen.append(("hidden", context))
        if case == "unet":
            config, params = open_component(tiny, "unet")
            seen.append(("prediction", unet.unet(params, config, latents, np.array([20, 801]), context)))
        if case == "vae":
            config, params = open_component(tiny, "vae")
            images = rng.uniform(-1, 1, (2, 3, 64, 48)).astype(np.float32)
            seen.extend(zip(("mean", "logvar"), vae.encode(params, config, images), strict=True))
            seen.append(("image", vae.decode(params, config, latents / np.float32(config.scaling_factor))))
    return seen


@pytest.mark.parametrize(("case", "blocks"), [("text", 4), ("unet", 50), ("vae", 30)])
def test_activations_stay_healthy_through_the_whole_depth(tiny, case, blocks):
    seen = activations(tiny, case)
    assert len(seen) >= blocks
    for name, x in seen:
        assert 0.1 < x.std() < 30, name
    assert np.std(seen[-1][1][0] - seen[-1][1][1]) > 0.2 * np.std(seen[-1][1])  # two inputs, two answers


def test_the_file_of_sd15_would_be_one_of_the_known_size():
    sizes = {c: sum(int(np.prod(leaf.shape)) for leaf in declaration(k).values()) for c, k in KINDS["sd15"].items()}
    assert sizes == {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863}


def test_the_keys_of_the_file_are_the_declared_ones(tiny):
    for component, config in KINDS["tiny"].items():
        path = next((tiny / component).glob("*.safetensors"))
        assert list(read_safetensors(path)) == list(declaration(config))
