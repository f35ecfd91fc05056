"""The golden commands as a person meets them: the table, the story, the files, and one line for every mistake."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from refdiff import cli
from refdiff.golden import Trace, read_trace, write_trace
from refdiff.golden.mutants import mutants

FIRST = "steps/000/unet/down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0"


@pytest.fixture
def run(monkeypatch, capfd):
    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["refdiff", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capfd.readouterr()

    return call


def one_line(err: str) -> str:
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("refdiff: error: "), err
    return lines[0]


def test_a_trace_is_recorded_with_what_was_asked(run, tiny, tmp_path):
    file = tmp_path / "g.safetensors"
    options = ["--steps", 2, "--seed", 3, "--at", "0,1", "--detail", "blocks", "--guidance", 4, "--negative", "blue"]
    code, out, _ = run("trace", "--model", tiny, "--prompt", "red", *options, "-o", file)
    trace = read_trace(file)
    assert code == 0 and out.startswith(f"{file}: {len(trace.tensors)} tensors")
    asked = {"prompt": "red", "negative_prompt": "blue", "steps": 2, "seed": [3], "guidance": 4.0}
    assert {key: trace.manifest["inputs"][key] for key in asked} == asked
    assert "steps/001/unet/mid_block" in trace.tensors
    assert trace.tensors["steps/001/prediction"].dtype == np.float64


def test_a_right_program_passes(run, tiny, golden_file, theirs_with):
    for model in ([], ["--model", tiny]):
        code, out, err = run("compare", theirs_with(""), golden_file, *model)
        assert (code, err) == (0, "") and " 0 fail, 0 missing" in out and "First wrong" not in out
    code, out, _ = run("diagnose", theirs_with(""), golden_file, "--model", tiny)
    assert code == 0 and "Nothing is wrong: every part gives what it should" in out


def test_what_is_not_there_is_not_called_right(run, tiny, golden_file, tmp_path):
    golden = read_trace(golden_file).tensors
    write_trace(tmp_path / "few.safetensors", Trace({"tokens/ids": golden["tokens/ids"]}))
    code, out, _ = run("diagnose", tmp_path / "few.safetensors", golden_file, "--model", tiny)
    last = f"Nothing is wrong in what was compared; {len(golden) - 1} golden tensors are not there."
    assert code == 0 and out.splitlines()[-1] == last


def test_what_was_taken_to_be_so_is_told(run, tiny, golden_file, tmp_path):
    file = tmp_path / "noted.safetensors"
    write_trace(file, Trace(read_trace(golden_file).tensors, {"about": {"notes": ["the \x1b[2J first"]}}))
    for command in ("compare", "diagnose"):
        _, out, _ = run(command, file, golden_file, "--model", tiny)
        assert out.splitlines()[-1] == "Their trace was made so: the  [2J first"


def test_the_table_begins_with_the_first_wrong_tensor(run, tiny, golden_file, theirs_with):
    code, out, _ = run("compare", theirs_with("geglu-swap"), golden_file, "--model", tiny)
    lines = out.splitlines()
    assert code == 1 and lines[0] == f"First wrong: {FIRST}"
    assert "its own part adds an error of" in lines[1] and "inherited are" in lines[1]
    assert lines[3].split()[:6] == ["tensor", "outcome", "kind", "error", "inherited", "added"]
    assert lines[4].split()[:3] == [FIRST, "fail", "float32"]
    assert lines[-1].startswith("Next: refdiff diagnose") and str(tiny) in lines[-1]
    every = run("compare", theirs_with("geglu-swap"), golden_file, "--model", tiny, "--all")[1]
    assert len(every.splitlines()) > len(read_trace(golden_file).tensors)


def test_without_a_model_all_that_follows_is_wrong_too(run, tiny, golden_file, theirs_with):
    with_model, alone = (run("compare", theirs_with("geglu-swap"), golden_file, *m)[1] for m in (["--model", tiny], []))
    failed = [int(out.split(" fail,")[0].split()[-1]) for out in (with_model, alone)]
    assert failed[0] < 20 < 100 < failed[1]
    assert f"First wrong: {FIRST}" in alone and "may only inherit" in alone


def test_the_bug_is_told_with_its_evidence(run, tiny, golden_file, theirs_with):
    code, out, _ = run("diagnose", theirs_with("geglu-swap"), golden_file, "--model", tiny)
    bug = next(mutant for mutant in mutants() if mutant.id == "geglu-swap")
    assert code == 1 and f"First wrong: {FIRST}" in out and f"The bug: geglu-swap: {bug.title}" in out
    assert bug.why in " ".join(out.split()) and bug.where in out
    assert "https://github.com/lucidrains/x-transformers/issues/9" in out and "Evidence: the error is" in out


def test_an_unknown_bug_is_told_as_one_with_the_nearest(run, tiny, golden_file, tmp_path):
    golden = read_trace(golden_file)
    wrong = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in golden.tensors.items()}
    noise = np.random.default_rng(0).normal(size=wrong[FIRST].shape).astype(np.float32)
    write_trace(tmp_path / "t.safetensors", Trace({**wrong, FIRST: wrong[FIRST] + noise}))
    code, out, _ = run("diagnose", tmp_path / "t.safetensors", golden_file, "--model", tiny)
    assert code == 1 and "None of the bugs that I know explains it." in out and "The bug:" not in out
    assert out.count("Nearest: ") <= 3


def test_the_reports_say_what_is_printed(run, tiny, golden_file, theirs_with, tmp_path):
    files = {kind: tmp_path / f"r.{end}" for kind, end in (("json", "json"), ("junit", "xml"), ("html", "html"))}
    options = [part for kind, file in files.items() for part in (f"--{kind}", file)]
    code, out, _ = run("diagnose", theirs_with("geglu-swap"), golden_file, "--model", tiny, *options)
    assert code == 1 and all(str(file) in out for file in files.values())
    data = json.loads(files["json"].read_text())
    assert (data["passed"], data["first_wrong"]) == (False, FIRST)
    assert data["diagnosis"][0]["cause"]["bugs"][0]["id"] == "geglu-swap"
    assert data["diagnosis"][0]["cause"]["after"] < 1e-5 < data["diagnosis"][0]["cause"]["before"]
    suite = ElementTree.parse(files["junit"]).getroot()
    assert suite.attrib["failures"] == str(data["counts"]["fail"]) == str(len(suite.findall("testcase/failure")))
    assert suite.attrib["tests"] == str(len(data["tensors"])) == str(len(suite.findall("testcase")))
    assert "geglu-swap" in files["html"].read_text()


class Page(HTMLParser):
    """Every tag and every address of a page; the words of its text."""

    VOID = {"meta", "img", "br", "path", "circle", "rect"}

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.tags, self.words = [], [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "data", "action")]
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words += data


def test_the_page_is_whole_and_fetches_nothing(run, tiny, golden_file, theirs_with, tmp_path):
    for number, command in enumerate(("diagnose", "compare")):
        file = tmp_path / f"{number}.html"
        run(command, theirs_with("geglu-swap"), golden_file, "--model", tiny, "--html", file)
        page = Page()
        page.feed(file.read_text(encoding="utf-8"))
        page.close()
        assert page.open == [] and not page.tags & {"script", "link", "iframe", "object", "form"}
        fetched = [address for address in page.addresses if not address.startswith("https://github.com/")]
        assert fetched and all(address.startswith("data:image/png;base64,") for address in fetched)
        assert "First wrong:" in page.words and f"first wrong: {FIRST}" in page.words


def test_words_of_a_manifest_are_no_html(run, golden_file, tmp_path):
    golden = read_trace(golden_file)
    told = {**golden.manifest, "inputs": {**golden.manifest["inputs"], "prompt": "<script>alert(1)</script>"}}
    write_trace(tmp_path / "g.safetensors", Trace(golden.tensors, told))
    assert run("compare", golden_file, tmp_path / "g.safetensors", "--html", tmp_path / "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_explain_tells_of_one_bug_or_lists_all(run):
    code, out, _ = run("explain")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [mutant.id for mutant in mutants()]
    code, out, _ = run("explain", "gn-eps")
    assert code == 0 and "1e-6" in out and "https://github.com/ml-explore/mlx-examples/issues/1434" in out
    code, _, err = run("explain", "gn-epz")
    assert code == 2 and "gn-eps" in one_line(err)


def test_other_names_come_by_a_table(run, golden_file, tmp_path):
    golden = read_trace(golden_file)
    np.savez(tmp_path / "t.npz", ids_0=golden.tensors["tokens/ids"], text_0=golden.tensors["text_encoder/context"])
    code, _, err = run("compare", tmp_path / "t.npz", golden_file)
    assert code == 2 and all(word in one_line(err) for word in ("ids_0", "tokens/ids", "--rename"))
    table = tmp_path / "names.txt"
    table.write_text("# ours\n\nids_0 = tokens/ids\ntext_0 = text_encoder/context\n")
    code, out, _ = run("compare", tmp_path / "t.npz", golden_file, "--rename", table)
    assert code == 0 and out.startswith("2 pass, 0 fail")
    for text, words in (
        ("ids_0 tokens/ids", "line 1"),
        ("ids_0 = a\nids_0 = b", "line 2"),
        ("ids_0 = ../../x\ntext_0 = tokens/ids", "cannot be the name"),
        ("ids_0 = text_0\ntext_1 = tokens/ids", "two tensors"),
        ("ids_0 = nothing", "none of its golden names"),
    ):
        table.write_text(text)
        code, _, err = run("compare", tmp_path / "t.npz", golden_file, "--rename", table)
        assert code == 2 and words in one_line(err), text


def test_wrong_requests_are_one_line(run, tiny, golden_file, theirs_with, tmp_path):
    right = theirs_with("")
    golden = read_trace(golden_file)
    told = {**golden.manifest, "inputs": {**golden.manifest["inputs"], "width": 128}}
    write_trace(tmp_path / "other-size.safetensors", Trace(golden.tensors, told))
    write_trace(tmp_path / "bare.safetensors", Trace(golden.tensors))
    for arguments, words in (
        (["diagnose", right, golden_file], "--model FOLDER"),
        (["diagnose", right, golden_file, "--model", "embedded"], "of another model"),
        (["diagnose", right, tmp_path / "bare.safetensors", "--model", tiny], "does not say how its run was made"),
        (["diagnose", right, tmp_path / "other-size.safetensors", "--model", tiny], "latents"),
        (["compare", "no-such", golden_file], "no such file"),
        (["compare", right, "no-such.safetensors"], "no such file"),
        (["compare", right, golden_file, "--html", tmp_path / "no" / "r.html"], "does not exist"),
        (["compare", right, golden_file, "--json", tmp_path / "r.html"], ".json"),
        (["compare", right, golden_file, "--model", "no/such"], "no/such"),
        (["trace", "--prompt", "x", "-o", tmp_path / "g.npz"], ".safetensors"),
        (["trace", "--prompt", "x", "-o", tmp_path / "g.safetensors", "--at", "x"], "--at x"),
        (["trace", "--prompt", "x", "-o", tmp_path / "g.safetensors", "--steps", 2, "--at", "2"], "calls 0 to 1"),
        (["trace", "--prompt", "x", "-o", tmp_path / "g.safetensors", "--detail", "all"], "blocks"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and words in one_line(err), (arguments, err)


def test_a_golden_trace_that_was_changed_is_refused(run, golden_file, theirs_with, tmp_path):
    changed = bytearray(golden_file.read_bytes())
    changed[-3] ^= 1
    (tmp_path / "g.safetensors").write_bytes(changed)
    code, _, err = run("compare", theirs_with(""), tmp_path / "g.safetensors")
    assert code == 2 and "is not as it was recorded" in one_line(err)
