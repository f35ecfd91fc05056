"""`refdiff samplers`, and samplers under any of their names."""

from __future__ import annotations

from click.testing import CliRunner

from refdiff import cli
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.samplers.schedulers import FAMILIES


def test_lists_every_sampler():
    done = CliRunner().invoke(cli.refdiff, ["samplers"])
    assert done.exit_code == 0, done.output
    heading, *rows = done.output.splitlines()
    assert heading.split()[:2] == ["here", "ComfyUI"]
    assert {row.split()[0] for row in rows} - {"-"} == set(FAMILIES)
    of = {row.split()[0]: row for row in rows}
    assert " no " in of["euler"] and " yes " in of["euler_ancestral"] and "DPM2 a" in of["k_dpm_2_ancestral"]
    sde = next(row for row in rows if "sample_dpmpp_2m_sde" in row)
    assert "DPM++ 2M SDE" in sde and " yes " in sde


def test_options_reach_the_pipeline(monkeypatch, tmp_path):
    asked = {}

    def call(self, prompt, negative_prompt="", *, callback=None, **options):
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "__call__", call)
    CliRunner().invoke(
        cli.refdiff,
        ["generate", "a red circle", "-o", str(tmp_path / "a.png"), "--sampler", "DPM++ 2M Karras", "--rng", "cuda:108x2048",
         "--guidance-rescale", "0.7", "--guidance-interval", "0.3", "5"],
    )  # fmt: skip
    assert asked["sampler"] == "DPM++ 2M Karras" and asked["rng"] == "cuda:108x2048"
    assert (asked["guidance_rescale"], asked["guidance_interval"]) == (0.7, (0.3, 5.0))
