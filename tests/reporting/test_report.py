import re
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from matdesinne.errors import ConfigError
from matdesinne.pipeline import DesignRun
from matdesinne.reporting.candidates import draw_candidates, run_section
from matdesinne.reporting.report import Picture, Section, Table, write_report

from ..toys import box, candidates, quadratic, rows
from .conftest import requests

HOSTILE = "<script src='https://example.org/x.js'>alert(1)</script> & \"quoted\""


def picture(folder: Path, text: str = "a figure") -> Picture:
    path = folder / "figure.png"
    Figure(figsize=(1, 1)).savefig(path)
    return Picture(path, text, text)


def written(folder: Path, sections: list[Section], settings: object = None) -> str:
    write_report(folder / "report.html", "A title", "One.\n\nTwo.", sections, settings or {})
    return (folder / "report.html").read_text(encoding="utf-8")


def everything(folder: Path, text: str) -> str:
    table = Table(text, [text, "number [eV]"], [[text, 1.23456], [None, 7], [True, None]])
    return written(folder, [Section(text, text, [picture(folder, text)], [table])], {text: {"inner": [text, None]}})


def test_rounding_errors_are_zero():
    """Beside numbers of their column; alone a small number is one."""
    table = Table(
        "", ["stage", "error", "alone"], [["sampled", 0.2, 3e-9], ["localized", -2.384e-07, None], ["both", 1e-5, "text"]]
    )
    assert table.shown == [["sampled", 0.2, 3e-9], ["localized", 0.0, None], ["both", 1e-5, "text"]]


def test_user_text_is_escaped(tmp_path):
    page = everything(tmp_path, HOSTILE)
    assert "<script" not in page and "&lt;script" in page and "&amp; &#34;quoted&#34;" in page


def test_figures_are_embedded(tmp_path):
    sources = re.findall(r'src="([^"]*)"', everything(tmp_path, "words"))
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    "words",
    ['<td class="number">1.235</td>', '<td class="number">7</td>', "<td></td>", "<p>One.</p>\n<p>Two.</p>", "matdesinne 0"],
    ids=["float", "int", "nothing", "paragraphs", "version"],
)
def test_contents(tmp_path, words):
    assert words in everything(tmp_path, "words")


def test_settings_are_flat(tmp_path):
    page = written(tmp_path, [], {"run": "pretrained", "selection": {"rules": ["a"], "none": None}})
    for name, value in (("run", "pretrained"), ("selection.rules", "[&#39;a&#39;]"), ("selection.none", "null")):
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page


def test_figure_needs_a_text_in_its_place(tmp_path):
    with pytest.raises(ConfigError, match=r"figure\.png"):
        Picture(tmp_path / "figure.png", "caption", " ")


def run_report(folder: Path) -> Path:
    """What generate.py writes."""
    sampled = candidates(quadratic(), rows(box(), 100).x, 0.5)
    run = DesignRun({"sampled": sampled, "selected": sampled.take(torch.arange(10), "selected")}, {"sampled": 0.5}, 3)
    draw_candidates(run, folder / "candidates.png")
    written(folder, [run_section(run, folder / "candidates.png")])
    return folder / "report.html"


@pytest.mark.slow
def test_stages_of_a_run(tmp_path):
    page = run_report(tmp_path).read_text(encoding="utf-8")
    assert '<td>selected</td><td class="number">10</td>' in page
    assert "Samples outside the design space: 3." in page


def hostile_report(folder: Path) -> Path:
    everything(folder, HOSTILE)
    return folder / "report.html"


@pytest.mark.parametrize("write", [run_report, hostile_report])
def test_in_a_browser(tmp_path, browser, write):
    browser.get(write(tmp_path).as_uri())
    assert browser.get_log("browser") == []
    widths = browser.execute_script("return [...document.images].map(image => image.complete && image.naturalWidth)")
    assert widths and all(widths)
    assert [url for url in requests(browser) if not url.startswith(("data:", tmp_path.as_uri()))] == []


def test_browser_log_tells_of_requests(tmp_path, browser):
    """That the test above can fail."""
    (tmp_path / "bad.html").write_text('<img src="http://127.0.0.1:9/x.png">')
    browser.get((tmp_path / "bad.html").as_uri())
    assert "http://127.0.0.1:9/x.png" in requests(browser)
    assert browser.get_log("browser") != []


def test_light_and_dark(tmp_path, browser):
    browser.get(run_report(tmp_path).as_uri())
    pages = set()
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        pages.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(pages) == 2
