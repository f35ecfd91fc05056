"""`refdiff samplers`, and samplers under any of their names."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from refdiff import cli
from refdiff.cli.samplers import PROGRAMS
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.samplers.names import ENDINGS, RULE, SCHEDULES_OF
from refdiff.samplers.schedulers import FAMILIES


def test_lists_every_sampler():
    done = CliRunner().invoke(cli.refdiff, ["samplers"])
    assert done.exit_code == 0, done.output
    heading, *rows = done.output.partition("\n\n")[0].splitlines()
    assert heading.split()[:2] == ["here", "ComfyUI"]
    assert {row.split()[0] for row in rows} - {"-"} == set(FAMILIES)
    of = {row.split()[0]: row for row in rows}
    assert " no " in of["euler"] and " yes " in of["euler_ancestral"] and "DPM2 a" in of["k_dpm_2_ancestral"]
    sde = next(row for row in rows if "sample_dpmpp_2m_sde" in row)
    assert "DPM++ 2M SDE" in sde and " yes " in sde


def test_tells_the_schedules_and_the_rule():
    done = CliRunner().invoke(cli.refdiff, ["samplers"])
    _, endings, rule = done.output.split("\n\n")
    for program, names in SCHEDULES_OF.items():
        line = next(line for line in endings.splitlines() if line.startswith(f"- {PROGRAMS[program]}, "))
        assert line.partition(": ")[2].split(", ") == list(names)
    assert endings.splitlines()[-1].endswith(", ".join(ENDINGS))
    assert [line[2:] for line in rule.splitlines()[1:]] == list(RULE)


def test_a_wrong_name_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    for name, said in (("eular", "did you mean euler"), ("heunpp2", "of ComfyUI and not here"), ("Euler Turbo", "of Forge")):
        monkeypatch.setattr("sys.argv", ["refdiff", "generate", "a red circle", "-o", str(tmp_path / "a.png"), "--sampler", name])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        told = capsys.readouterr().err
        assert stopped.value.code == 2 and told.count("\n") == 1 and told.startswith("refdiff: error: ") and said in told


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
