"""README and guide: every command, snippet and file works, in the order of its page; links resolve; the guide builds."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from matdesinne.cli.config import config_folder

from .toys import ROOT, script_config
from .warm import Warm, environment

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHECKOUT = {"own_model"}
"""Pages whose commands are given in the folder of the sources."""
LISTS = {"commands", "paper", "results"}
"""Pages that list scripts with files that only other pages make: the settings of their commands are composed."""

LINKED = sorted(
    [*ROOT.glob("*.md"), *(path for name in ("docs", "matdesinne", "results") for path in (ROOT / name).rglob("*.md"))]
)
"""Pages whose links are followed."""

SHELLS = {"sh", "bash", "console"}
OTHERS = {"{toctree}", "{warning}", "{note}", "{eval-rst}", "mermaid", "text", "json", "bibtex"}
"""Blocks that are nothing to run; a block in any other language fails."""

COMPOSE = "--cfg job"
TRAINER, SWEEPER = "matdesinne-train", "sweep-job"
TRAIN = (
    "trainer.accelerator=cpu trainer.enable_progress_bar=false logger=csv model.max_epochs=1 "
    "surrogate.network.hidden=16 surrogate.max_epochs=3 surrogate.optimizer.lr=0.01 "
    "data.synthetic.uniform=2000 data.synthetic.chains=200 data.synthetic.steps=1"
)
BENCHMARK = (
    "trainer.accelerator=cpu trainer.enable_progress_bar=false workers=1 trainer.max_epochs=1 num_samples=100 targets=[1.0] "
    "baselines=false surrogate.network.members=1 evaluator.network.members=1 evaluator.network.hidden=8 evaluated=20 "
    "data.synthetic.uniform=2000 data.synthetic.chains=200 data.synthetic.steps=1"
)
DESIGN = (
    "num_samples=100 'train=trainer.accelerator=cpu surrogate=gp surrogate.optimizer.max_iter=5 model.max_epochs=1 "
    "data.synthetic.uniform=2000 data.synthetic.chains=200 data.synthetic.steps=1' tolerance=9 accepted_error=9"
)
SURROGATE = "oracle=surrogate executor._target_=tests.layers.toy.Threads"  # the server of a process pool imports for seconds
FREE = (
    "oracle=ase oracle.valence_bands=3 executor.workers=2 sobol.count=60 ~oracle.calculator "
    "'+oracle.calculator={_target_: ase.calculators.test.FreeElectrons, nvalence: 6, nbands: 8, kpts: [[0, 0, 0]]}'"
)

CHEAPER = {
    # what is added to a command, by its beginning; the longest one counts
    "make": f"-n -C {shlex.quote(str(ROOT))}",
    "matdesinne-generate": "num_samples=60 structures=false",
    "matdesinne-generate target=1.0 num_samples=10000": "num_samples=200",
    "matdesinne-generate target=1.0 --cfg job": "",
    "matdesinne-generate target=1.0 'where=strain_energy": "num_samples=1000 structures=false",
    "matdesinne-generate run=runs": "num_samples=60 selection.rules.1.tolerance=9 accepted_error=9",
    # free electrons have gaps from 2.4 to 2.8 eV
    "matdesinne-generate run=runs/mose2": "target=2.6 num_samples=60 selection.rules.1.tolerance=9 accepted_error=9",
    "matdesinne-explore": COMPOSE,
    "matdesinne-design": DESIGN,
    "matdesinne-design layer.cif": COMPOSE,
    "matdesinne-label points=one_ev": SURROGATE,
    "matdesinne-label points=one_ev/candidates.parquet executor=slurm": COMPOSE,
    "matdesinne-label points=one_ev/candidates.parquet oracle.relax": COMPOSE,
    "matdesinne-label points=sobol": COMPOSE,
    "matdesinne-label oracle=ase": COMPOSE,
    "matdesinne-label --config-dir=my oracle=free_electrons": "executor.workers=2",
    "matdesinne-label task=validate": SURROGATE,
    "matdesinne-label task=validate material=tmd_strain": COMPOSE,
    "matdesinne-label material=tmd_strain": COMPOSE,
    "matdesinne-label task=active": COMPOSE,
    "matdesinne-label material=mose2": FREE,
    "matdesinne-label --config-dir=my material=hbn": COMPOSE,
    "matdesinne-train": TRAIN,
    "matdesinne-train data=tmd_strain": re.sub(r"surrogate\.\S+ ", "", TRAIN) + " surrogate.optimizer.max_iter=5",
    "matdesinne-train surrogate=distilled/bands": COMPOSE,
    "matdesinne-train --config-dir=my data=mose2": f"{TRAIN} surrogate=mlp",  # free electrons give no bands
    "matdesinne-train --config-dir=my data=conductivity ~model": TRAIN.replace("model.max_epochs=1", ""),
    "matdesinne-train trainer.devices=2": COMPOSE,
    "matdesinne-train 'data.added=": COMPOSE,
    "matdesinne-train resume=": "",
    "python train.py": TRAIN,
    "python generate.py run=runs": "num_samples=60 structures=false selection.rules.1.tolerance=9 accepted_error=9",
    "python benchmark.py --config-dir=my": f"{BENCHMARK} hydra.run.dir=out",
    "python -m pytest": "-q -p no:cacheprovider --assert=plain",  # it cannot rewrite the asserts of what a fork has imported
    "python generate.py target=1.0": "num_samples=60",
}

SWEEPS = {
    "matdesinne-train -m hparams_search=cvae": "model.beta=0.1",
    "matdesinne-train -m hparams_search=optuna": "hydra.sweeper.n_trials=2",
    "matdesinne-train -m hydra/launcher=cores": "hydra.launcher.n_jobs=1",
}
"""The same for commands of which `sweep_job.py`, which trains nothing, runs the sweep."""

ELSEWHERE = {
    "pip install": "needs a registry; tests/test_packaging.py builds the wheel and runs what it installs",
    "docker build": "needs a container engine",
    "matdesinne-train -m hydra/launcher=cluster": "needs Slurm",
}
"""Commands that cannot be run here, by their beginning, and why; `test_elsewhere_is_whole` looks at what they need."""


FEWER = {
    # what is written instead of a part of the Python of a page
    "max_epochs=100)": "max_epochs=1)",
    "MLPSurrogate(space, properties))": "MLPSurrogate(space, properties, hidden=32, depth=2), max_epochs=60)",
    "CINN(space, properties))": "CINN(space, properties), max_epochs=3)",
    "CINN(space, properties)": "CINN(space, properties, hidden=(16, 32), depth=2)",
    "max_epochs=300)": "max_epochs=100)",
    "uniform=20_000, chains=2_000": "uniform=2_000, chains=200",
    "num_samples=10_000": "num_samples=500",
    "num_samples=1000, generator": "num_samples=200, generator",
    "num_samples=5_000": "num_samples=500",
}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    file: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}.md:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks; a code block with a caption is a file of that name."""
    text = path.read_text(encoding="utf-8")
    found = list(re.finditer(r"^```(\S+) ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE))
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(found), f"{path}: a fence that is not read"
    for match in found:
        language, argument, content = match.groups()
        options = dict(re.findall(r"^:([\w-]+): *(.*)$", content, re.MULTILINE)) if language.startswith("{") else {}
        if language in ("{code-block}", "{code-cell}"):
            language, content = argument, re.sub(r"\A(?::.*\n)+\n?", "", content)
        elif language == "{literalinclude}":
            language, content = "file", (path.parent / argument).read_text(encoding="utf-8")
        yield Block(path.stem, text.count("\n", 0, match.start()) + 1, language, options.get("caption"), content)


def commands(block: Block) -> list[str]:
    """The commands of a block, continued lines joined."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def is_listed(block: Block, command: str) -> bool:
    """Whether the settings of a command are composed, and nothing else."""
    return block.page in LISTS and command.startswith("python ")


COMMANDS = [
    (block, command)
    for path in PAGES
    for block in blocks(path)
    if block.language in SHELLS
    for command in commands(block)
    if not is_listed(block, command)
]


def entry(command: str) -> str:
    """The beginning under which a command stands in the tables above."""
    known = [begin for begin in (*CHEAPER, *SWEEPS, *ELSEWHERE) if command.startswith(begin)]
    assert known, f"no test knows how to run {command!r}: add it to CHEAPER"
    return max(known, key=len)


def test_commands_are_those_of_the_tables():
    assert {entry(command) for _, command in COMMANDS} == {*CHEAPER, *SWEEPS, *ELSEWHERE}


def test_parts_of_python_are_there():
    python = "\n".join(block.text for path in PAGES for block in blocks(path) if block.language == "python")
    assert [part for part in FEWER if part not in python] == []


def test_blocks_are_of_known_kinds():
    kinds = SHELLS | OTHERS | {"python"}
    every = [block for path in PAGES for block in blocks(path)]
    assert [str(block) for block in every if block.file is None and block.language not in kinds] == []


def script(root: Path, words: list[str]) -> tuple[Path | str, list[str]] | None:
    """The script or module that a command runs and its words; none of other commands."""
    if words[0] in PROJECT["scripts"]:
        return root / f"{words[0].removeprefix('matdesinne-')}.py", words[1:]
    if words[0] == SWEEPER:
        return root / "tests" / "sweep_job.py", words[1:]
    if words[0] == "python" and words[1].endswith(".py"):
        return root / words[1], words[2:]
    if words[:2] == ["python", "-m"]:
        return words[2], words[3:]
    return None


def compose_all(command: str) -> None:
    """Compose the settings of a listed command; of a sweep every choice of a group, and the first of other values."""
    script, *words = shlex.split(command)[1:]
    words = [re.sub(r"^where=(.*)$", r"where='\1'", re.sub(r"^(\w+)=null$", r"~\1", word)) for word in words if word != "-m"]
    values = [
        [f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()] if word.is_sweep_override() else [line]
        for line, word in zip(words, OverridesParser.create().parse_overrides(words), strict=True)
    ]
    values = [found if (ROOT / "conf" / found[0].split("=")[0]).is_dir() else found[:1] for found in values]
    for number in range(max(map(len, values), default=1)):
        script_config(script.removesuffix(".py"), ROOT, *(found[number % len(found)] for found in values))


class Page:
    """A folder in which the blocks of a page run one after another."""

    def __init__(self, path: Path, folder: Path, warm: Warm) -> None:
        self.path, self.folder, self.warm = path, folder, warm
        self.root = folder if path.stem in CHECKOUT else ROOT
        self.names: dict[str, object] = {"__name__": "page"}
        if self.root == folder:
            for name in ("conf", "matdesinne", "tests"):
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            for path in (*ROOT.glob("*.py"), *(ROOT / name for name in ("pyproject.toml", "Makefile", "constraints.txt"))):
                shutil.copy(path, folder)

    def run(self, block: Block) -> None:
        if block.file is not None:
            (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            text = block.text
            for part, other in FEWER.items():
                text = text.replace(part, other)
            exec(compile("\n" * block.line + text, self.path, "exec"), self.names)
        elif block.language in SHELLS:
            for command in commands(block):
                self.start(block, command)

    def start(self, block: Block, command: str) -> None:
        if is_listed(block, command):
            compose_all(command)
            return
        begin = entry(command)
        if begin in ELSEWHERE:
            return
        if begin in SWEEPS:
            command = command.replace(TRAINER, SWEEPER, 1)
        words = shlex.split(f"{command} {CHEAPER.get(begin) or SWEEPS.get(begin, '')}")
        called = script(self.root, words)
        status, said = self.plain(words) if called is None else self.warm.run(*called, self.folder, environment(self.root))
        assert status == 0, f"{block}: {shlex.join(words)}\n{said}"

    def plain(self, words: list[str]) -> tuple[int, str]:
        words = [sys.executable, *words[1:]] if words[0] == "python" else words
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(words, cwd=self.folder, env=environment(self.root), timeout=300, check=False, **streams)
        return done.returncode, done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page_works(path, tmp_path, monkeypatch, warm):
    """In a folder beside the results, as `docs` is."""
    from matplotlib import pyplot

    (tmp_path / "results").symlink_to(ROOT / "results")
    folder = tmp_path / "docs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)  # as in a Python that is started there
    page = Page(path, folder, warm)
    for block in blocks(path):
        page.run(block)
    pyplot.close("all")


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(<?([^)\s>]+)>?\)", text):
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        if not re.match(r"[a-z]+:", link) and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for _, command in COMMANDS if entry(command) in ELSEWHERE])
def test_elsewhere_is_whole(command):
    """The files, extras and stages that a command names are there."""
    words = shlex.split(command)
    if words[0] == "pip":
        assert [word for word in words if word.endswith(".txt") and not (ROOT / word).is_file()] == []
        extras = [extra for word in words for part in re.findall(r"\[(.*)\]", word) for extra in part.split(",")]
        assert set(extras) <= set(PROJECT["optional-dependencies"])
    elif words[0] == "docker":
        recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        sources = [word for line in re.findall(r"^COPY (.*)$", recipe, re.MULTILINE) for word in line.split()[:-1]]
        assert sources and all((ROOT / source).exists() for source in sources)
        arguments = [word.split("=") for word in words if "=" in word]
        assert all(f"ARG {name}" in recipe and f" AS {value}\n" in recipe for name, value in arguments)
    else:
        pytest.importorskip("submitit")
        with initialize_config_dir(config_folder(), version_base="1.3"):
            job = [word.split(",")[0] for word in words[2:]]
            assert compose("train", job, return_hydra_config=True).hydra.launcher.partition == "gpu"


def test_every_module_is_in_the_reference():
    listed = [name for path in DOCS.glob("api/*.md") for name in re.findall(r"automodule:: (\S+)", path.read_text())]
    files = [path for path in (ROOT / "matdesinne").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sphinx", "furo", "myst_nb", "sphinxcontrib.mermaid")),
    reason="needs the extra docs",
)
def test_guide_builds_without_warnings(tmp_path, warm):
    """`test_page_works` runs the cells of the tutorial, `make docs` both."""
    unexecuted = ["-D", "nb_execution_mode=off", "-D", "suppress_warnings=myst-nb.lexer"]
    words = ["-q", "-W", "--keep-going", *unexecuted, str(DOCS), str(tmp_path / "html")]
    status, said = warm.run("sphinx", words, tmp_path, environment())
    assert status == 0, said
    assert (tmp_path / "html" / "api" / "design.html").is_file()
