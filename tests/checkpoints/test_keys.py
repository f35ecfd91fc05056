"""The tables between spellings of keys are bijections, and only touch what they should."""

import pytest

from refdiff.checkpoints.configurations import KINDS
from refdiff.checkpoints.keys import IGNORABLE, OLD_ATTENTION, SPELLINGS, Spelling, aliases, squeezed
from refdiff.checkpoints.synthetic import declaration

NETWORKS = {
    "UNet2DConditionModel": KINDS["sd15"]["unet"],
    "AutoencoderKL": KINDS["sd15"]["vae"],
    "CLIPTextModel": KINDS["sd15"]["text_encoder"],
}
TOUCHED = {"AutoencoderKL": 16, "CLIPTextModel": 196}  # 2 attentions of 4 projections with weight and bias; every key


@pytest.mark.parametrize("family", SPELLINGS)
def test_every_spelling_is_a_bijection_of_the_keys_of_sd15(family):
    canonical = list(declaration(NETWORKS[family]))
    for spelling in SPELLINGS[family]:
        written = {spelling.write(key): key for key in canonical}
        assert len(written) == len(canonical)
        assert sum(old != new for old, new in written.items()) == TOUCHED[family]
        table = aliases(family, canonical)
        assert {table[old]: old for old in written} == {key: spelling.write(key) for key in canonical}


@pytest.mark.parametrize("family", NETWORKS)
def test_a_canonical_key_stands_for_itself_and_no_foreign_key_is_known(family):
    canonical = list(declaration(NETWORKS[family]))
    table = aliases(family, canonical)
    assert all(table[key] == key for key in canonical) and set(table.values()) == set(canonical)
    assert len(table) == len(canonical) + TOUCHED.get(family, 0)


def test_the_old_attention_of_the_autoencoder():
    table = aliases("AutoencoderKL", declaration(NETWORKS["AutoencoderKL"]))
    place = "decoder.mid_block.attentions.0"
    assert table[f"{place}.query.weight"] == f"{place}.to_q.weight"
    assert table[f"{place}.key.bias"] == f"{place}.to_k.bias"
    assert table[f"{place}.value.weight"] == f"{place}.to_v.weight"
    assert table[f"{place}.proj_attn.bias"] == f"{place}.to_out.0.bias"
    assert len(set(OLD_ATTENTION.values())) == 4


def test_the_text_encoder_without_its_prefix():
    table = aliases("CLIPTextModel", declaration(NETWORKS["CLIPTextModel"]))
    assert table["encoder.layers.3.mlp.fc1.bias"] == "text_model.encoder.layers.3.mlp.fc1.bias"
    assert IGNORABLE == {"CLIPTextModel": ("text_model.embeddings.position_ids",)}


def test_only_projections_of_the_autoencoder_lose_their_last_axes():
    key = "encoder.mid_block.attentions.0.to_out.0.weight"
    assert squeezed("AutoencoderKL", key, (8, 8, 1, 1)) == (8, 8)
    assert squeezed("AutoencoderKL", key, (8, 8)) == (8, 8)
    assert squeezed("AutoencoderKL", key, (8, 8, 3, 1)) == (8, 8, 3, 1)
    assert squeezed("AutoencoderKL", "quant_conv.weight", (8, 8, 1, 1)) == (8, 8, 1, 1)
    assert squeezed("UNet2DConditionModel", "x.attentions.0.to_q.weight", (8, 8, 1, 1)) == (8, 8, 1, 1)


def test_an_ambiguous_table_is_refused(monkeypatch):
    blind = Spelling("blind", lambda key: "same")
    monkeypatch.setattr("refdiff.checkpoints.keys.SPELLINGS", {"X": (blind,)})
    with pytest.raises(ValueError, match="same would stand for a and for b"):
        aliases("X", ["a", "b"])
