"""The page of a diagnosis in a browser: it draws, and tells the bug."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from PIL import Image

import refdiff
from refdiff.golden import Trace, diagnose, record
from refdiff.golden.mutants import Site, mutants
from refdiff.golden.stages import Setting
from refdiff.golden.story import told
from refdiff.report import as_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE = (900, 700)
BUG = "cfg-swap"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is on the path")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a program that mixes both predictions the wrong way round."""
    pipe, asked = refdiff.load(kernels="spec"), {"steps": 1, "width": 16, "height": 16}
    golden = record(pipe, "a red circle", detail="steps", **asked)
    setting = Setting.of(pipe, golden.manifest["inputs"])
    variant = next(iter(next(mutant for mutant in mutants() if mutant.id == BUG).variants.values()))
    with variant(Site(setting, "")) as changed:
        theirs = Trace(record(changed.pipe, "a red circle", detail="steps", **asked).tensors)
    diagnosis = diagnose(setting, theirs, golden)
    file = tmp_path_factory.mktemp("page") / "report.html"
    text = as_html(diagnosis.report, theirs, golden, names=("theirs", "golden"), story=told(diagnosis))
    file.write_text(text, encoding="utf-8")
    return file


def browsed(page, tmp_path, *options):
    """What the browser prints of the page."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    run = [BROWSER, *quiet, f"--window-size={SIZE[0]},{SIZE[1]}", *options, page.as_uri()]
    return subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_page_has_the_bugs_name_and_its_curve(page, tmp_path):
    dom = browsed(page, tmp_path, "--dump-dom")
    assert f"{BUG}:" in dom and "<svg" in dom


def test_the_page_draws(page, tmp_path):
    """Of the size that was asked for, in more colours than text on a plain ground has, the mark of a failure among them."""
    browsed(page, tmp_path, f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == SIZE
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert len(colours) > 50
    assert sum(n for n, (r, g, b) in colours if r > g + 100 and r > b + 100) > 100
