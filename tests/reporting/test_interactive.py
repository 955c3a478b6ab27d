"""Candidates to work with: what the page holds, and what real clicks do in a browser."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from matdesinne.candidates import Candidates
from matdesinne.data.table import DesignTable
from matdesinne.reporting.candidates import candidate_view
from matdesinne.reporting.interactive import CandidateView
from matdesinne.reporting.report import Section, write_report
from matdesinne.space import DesignSpace, Parameter
from matdesinne.structures import CELL_PARAMETERS, Prototype, cell_vectors

from ..toys import box, candidates, load_part, quadratic, rows
from .conftest import requests

HOSTILE = "</script><script>document.title = 'hostile'</script><img src=http://127.0.0.1:9/x.png onerror=\"alert(1)\">"


def written(folder: Path, *views: CandidateView) -> Path:
    sections = [Section(f"Part {i}", view=view) for i, view in enumerate(views)]
    write_report(folder / "report.html", "A title", "One.", sections, {})
    return folder / "report.html"


def toy_view(count: int = 50, **changes: object) -> CandidateView:
    return replace(candidate_view(candidates(quadratic(), rows(box(), count).x, 0.5)), **changes)


def test_columns():
    space = DesignSpace([Parameter("a", "angstrom", 2.0, 4.0, reference=3.0), Parameter("field", "V", -1.0, 1.0)])
    table = replace(candidates(quadratic(), rows(box(), 4).x, 0.5), space=space)
    table = replace(table, designs=torch.tensor([[3.3, 0.0], [2.4, 1.0], [3.0, -1.0], [3.0, 0.5]]))
    measured = DesignTable(table.designs[:1], table.mean[:1], torch.tensor([7]))
    labels = torch.tensor([float("nan"), 0.6, float("nan"), float("nan")])
    view = candidate_view(table, measured=measured, labels=labels)
    name = table.properties[0].name
    assert list(view.columns) == [
        "row", "a", "field", name, f"{name}_std", "largest strain", "distance to data", f"{name} (checked)",
    ]  # fmt: skip
    assert view.columns["largest strain"][1] == pytest.approx([0.1, 0.2, 0.0, 0.0], abs=1e-6)
    assert view.columns["distance to data"][1][:2] == pytest.approx([0.0, (0.45**2 + 0.5**2) ** 0.5 / 2**0.5], abs=1e-6)
    assert view.checked == [False, True, False, False]
    assert view.targets[name] == view.targets[f"{name} (checked)"] == (0.5, 0.5)


def test_most_certain_candidates_are_shown():
    table = candidates(quadratic(), rows(box(), 2100).x, 0.5)
    table = replace(table, std=torch.arange(2100.0).flip(0)[:, None])
    assert candidate_view(table).columns["row"][1] == list(range(100, 2100))
    labels = torch.where(torch.arange(2100) == 5, 0.5, float("nan"))
    assert candidate_view(table, labels=labels).columns["row"][1] == [5, *range(101, 2100)]


def test_structures_of_crystals_only():
    space, prototype = load_part("space"), load_part("prototype")
    table = replace(candidates(quadratic(), rows(box(), 3).x, 0.5), space=space, designs=space.sample(3, None))
    assert np.asarray(candidate_view(table, prototype).cells).shape == (3, 9)
    assert not candidate_view(table).shows_structures
    assert not candidate_view(candidates(quadratic(), rows(box(), 3).x, 0.5), prototype).shows_structures


def relaxed_layers() -> tuple[Candidates, Prototype]:
    """Three strained layers, and atoms that rise with a."""
    space, prototype = load_part("space", "tmd_strain/mos2"), load_part("prototype", "tmd_strain/mos2")
    table = replace(candidates(quadratic(), rows(box(), 3).x, 0.5), space=space, designs=space.sample(3, None))
    cells = space.values(space.sample(20, None), CELL_PARAMETERS)
    moved = torch.tensor(prototype.positions).expand(20, -1, -1) @ cell_vectors(cells)
    moved[:, 1:, 2] += 5 * (cells[:, :1] / 3.184 - 1)
    return table, prototype.relaxed(space, space.from_columns(dict(zip(CELL_PARAMETERS, cells.T, strict=True))), moved)


def test_atoms_are_where_they_relax_to():
    table, prototype = relaxed_layers()
    view = candidate_view(table, prototype)
    for design, positions in zip(table.designs.tolist(), view.positions, strict=True):
        atoms = prototype.atoms(table.space.design(design))
        np.testing.assert_allclose(positions, atoms.get_scaled_positions(wrap=False), atol=2e-6)
    assert np.ptp(np.asarray(view.positions)[:, 1, 2]) > 1e-3
    rigid = candidate_view(table, replace(prototype, response=None))
    assert np.asarray(rigid.positions).shape == (1, 3, 3)


def test_drawn_atoms_are_those_of_the_structure(tmp_path, browser):
    pytest.importorskip("chemiscope")
    table, prototype = relaxed_layers()
    reader = Reader(browser, written(tmp_path, candidate_view(table, prototype)))
    reader.run("""Chemiscope.StructureVisualizer.load = async ({loadStructure}, {structures}) => {
        window.drawn = structures.map((structure, row) => loadStructure(row, structure));
        return {select() {}};
    }""")
    reader.run("return shown()[1].querySelector('.slick-cell')").click()
    drawn = reader.until("return window.drawn")
    for design, found in zip(table.designs.tolist(), drawn, strict=True):
        atoms = prototype.atoms(table.space.design(design))
        np.testing.assert_allclose(np.array([found[axis] for axis in "xyz"]).T, atoms.positions, atol=1e-4)


def test_policy_names_each_script(tmp_path):
    page = written(tmp_path, toy_view()).read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(hashes) == 5 and policy.endswith("script-src " + " ".join(f"'sha256-{value}'" for value in hashes))
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy and "http" not in policy


def test_texts_stay_inside_their_element():
    content = toy_view(columns={"a": (HOSTILE, [1.0, 2.0])}, targets={}).content()
    assert "<" not in content and json.loads(content)["axes"][0]["high"] == 2.0


@pytest.mark.parametrize(
    ("values", "least"), [([1.0, 1.0], 1e-3), ([0.0, 0.0], 1.0), ([float("nan")] * 2, 1.0), ([1e-9, 3e-9], 1e-10)]
)
def test_axes_have_a_length(values, least):
    axis = json.loads(toy_view(columns={"a": ("1", values)}, targets={}).content())["axes"][0]
    assert axis["high"] - axis["low"] >= least


class Reader:
    """Works with a page as a reader does, by mouse."""

    def __init__(self, browser, path: Path) -> None:
        self.browser = browser
        browser.get_log("browser")
        requests(browser)
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
        )
        browser.get(path.as_uri())
        self.until("return [...document.querySelectorAll('output')].every(output => output.textContent)")

    def until(self, script: str) -> object:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 120, 0.2).until(lambda browser: self.run(script))

    def run(self, script: str, *arguments: object) -> object:
        names = """
            const model = (name) => Bokeh.documents[0].get_model_by_name(name);
            const table = () => Bokeh.index.find_one_by_id(model("table").id).shadow_el;
            const shown = () => [...table().querySelectorAll(".slick-row")]
                .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top);
        """
        return self.browser.execute_script(names + script, *arguments)

    @property
    def kept(self) -> list[int]:
        return self.run("return model('brushed').indices")

    @property
    def rows(self) -> list[int]:
        """Numbers of the candidates in the part of the table that is seen."""
        return [int(text) for text in self.run("return shown().map(row => row.querySelector('.slick-cell').textContent)")]

    def drag(self, axis: int, start: float, end: float) -> None:
        """Draw a brush along an axis, in shares of its length."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        place = """
            const view = Bokeh.index.find_one_by_id(model("plot").id), box = view.el.getBoundingClientRect();
            return [box.left + view.frame.x_scale.compute(arguments[0]), box.top + view.frame.y_scale.compute(arguments[1])];
        """
        (x, top), (_, bottom) = self.run(place, axis, start), self.run(place, axis, end)
        builder = ActionBuilder(self.browser, duration=20)
        mouse = builder.pointer_action
        mouse.move_to_location(int(x) - 6, int(top))
        mouse.pointer_down()
        mouse.move_to_location(int(x) + 2, int((top + bottom) / 2))
        mouse.move_to_location(int(x) + 6, int(bottom))
        mouse.pointer_up()
        builder.perform()
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")  # is drawn

    def errors(self) -> list[str]:
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE" or "Content Security" in entry["message"]]


def shares(view: CandidateView, place: int) -> np.ndarray:
    """Places of the candidates on an axis, from 0 to 1."""
    axis = json.loads(view.content())["axes"][place]
    values = [column for name, (_, column) in view.columns.items() if name not in view.hidden][place]
    return (np.asarray(values) - axis["low"]) / (axis["high"] - axis["low"])


def test_brush_and_table(tmp_path, browser):
    view = toy_view()
    reader = Reader(browser, written(tmp_path, view))
    assert reader.kept == list(range(50)) and reader.rows[:3] == [0, 1, 2]

    reader.drag(0, 0.25, 0.6)
    first, sure = shares(view, 0), 0.02  # of a pixel or two
    inside = {k for k in range(50) if 0.25 + sure < first[k] < 0.6 - sure}
    around = {k for k in range(50) if 0.25 - sure < first[k] < 0.6 + sure}
    assert inside <= set(reader.kept) <= around and 5 < len(inside) < 40
    assert reader.rows == reader.kept[: len(reader.rows)]
    assert reader.run("return document.querySelector('output').textContent") == f"{len(reader.kept)} of 50 candidates"

    reader.drag(1, 0.1, 0.5)
    second = shares(view, 1)
    assert set(reader.kept) == {k for k in reader.kept if second[k] < 0.5 + sure} < around

    browser.find_element("css selector", ".interactive button").click()
    assert reader.kept == list(range(50)) and reader.errors() == []


def test_edge_of_a_brush(tmp_path, browser):
    reader = Reader(browser, written(tmp_path, toy_view()))
    reader.drag(0, 0.2, 0.5)
    before = set(reader.kept)
    reader.drag(0, 0.5, 0.9)
    assert before < set(reader.kept) and reader.run("return model('brush 0').top") == pytest.approx(0.9, abs=0.05)
    assert reader.run("return model('brush 0').bottom") == pytest.approx(0.2, abs=0.05)


def test_sorting_and_picking(tmp_path, browser):
    view = toy_view()
    spread = np.random.default_rng(0).permutation(50).astype(float) + 0.5
    name = next(name for name in view.columns if name.endswith("_std"))
    reader = Reader(browser, written(tmp_path, replace(view, columns={**view.columns, name: ("1", spread.tolist())})))
    head = f"return [...table().querySelectorAll('.slick-header-column')].find(head => head.textContent.startsWith('{name}'))"
    reader.run(head).click()
    assert reader.rows[:5] == np.argsort(spread)[:5].tolist()
    reader.run(head).click()
    assert reader.rows[:5] == np.argsort(-spread)[:5].tolist()

    reader.run("return shown()[2].querySelector('.slick-cell')").click()
    row = int(np.argsort(-spread)[2])
    assert reader.run("return model('candidates').selected.indices") == [row]
    assert reader.run("return shown()[2].querySelector('.slick-cell').classList.contains('selected')") is True
    assert reader.errors() == []


def test_structure_of_a_picked_candidate(tmp_path, browser):
    pytest.importorskip("chemiscope")
    space = load_part("space")
    table = replace(candidates(quadratic(), rows(box(), 20).x, 0.5), space=space, designs=space.sample(20, None))
    view = candidate_view(table, load_part("prototype"))
    reader = Reader(browser, written(tmp_path, view))
    canvases = """
        const all = (root) => [...root.querySelectorAll("*")].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
        return all(document.querySelector(".structure")).filter(e => e.tagName == "CANVAS").length
    """
    assert reader.run(canvases) == 0
    # without a graphics card each pixel of the structure costs time
    small = {"width": 480, "height": 600, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", small)
    reader.run("return shown()[1].querySelector('.slick-cell')").click()
    assert reader.until(canvases)
    assert reader.errors() == [] and [url for url in requests(browser) if not url.startswith(("data:", "file:", "blob:"))] == []


def test_hostile_texts_and_two_views(tmp_path, browser):
    hostile = toy_view(columns={"row": ("1", [0.0, 1.0]), "a": (HOSTILE, [1.0, 2.0])}, targets={})
    reader = Reader(browser, written(tmp_path, hostile, toy_view(3)))
    assert browser.title == "A title"
    assert "<script>" in reader.run("return table().querySelectorAll('.slick-header-column')[1].textContent")
    texts = reader.run("return [...document.querySelectorAll('output')].map(output => output.textContent)")
    assert texts == ["2 of 2 candidates", "3 of 3 candidates"]
    assert reader.errors() == []
    assert [url for url in requests(browser) if not url.startswith(("data:", tmp_path.as_uri()))] == []


def test_two_thousand_candidates(tmp_path, browser):
    """Size of the page, and the time from a brush until the table shows what is left; tens of milliseconds on an idle core."""
    table = candidates(quadratic(), rows(box(), 2000).x, 0.5)
    path = written(tmp_path, candidate_view(table))
    assert path.stat().st_size < 10e6
    reader = Reader(browser, path)
    brush = """
        const box = model("brush 0");
        for (let i = 0; i < 10; i++) {
            box.setv({visible: true, bottom: 0.1, top: 0.4 + 0.05 * i});
            shown();
        }
    """
    reader.run(brush)
    assert 0 < len(reader.kept) < 2000
    before = cpu_seconds(browser)
    reader.run(brush)
    assert (cpu_seconds(browser) - before) / 10 < 0.25


def cpu_seconds(browser) -> float:
    """Time of the page on a core, whatever else the machine does."""
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration")
