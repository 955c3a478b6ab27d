"""The files of a generation: candidates, structures, summary, picture and report."""

from __future__ import annotations

__all__ = ["write_run"]

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from matdesinne.data.table import DesignTable
from matdesinne.exports import Exports
from matdesinne.files import write_json
from matdesinne.pipeline import DesignRun
from matdesinne.reporting.candidates import candidate_view, draw_candidates, run_section
from matdesinne.reporting.report import write_report
from matdesinne.structures import Prototype, write_extxyz


def write_run(
    run: DesignRun,
    folder: Path,
    settings: DictConfig,
    text: str = "",
    prototype: Prototype | None = None,
    exports: Exports | None = None,
    structures: bool = True,
    measured: DesignTable | None = None,
) -> None:
    """Write ``candidates.parquet``, ``.csv`` and ``.extxyz``, ``summary.json``, ``candidates.png`` and ``report.html``.

    Args:
        run: what is left of the samples.
        folder: of the files.
        settings: of the command, for summary and report.
        text: the first paragraph of the report.
        prototype: the atoms of a design, where designs are crystals.
        exports: files in other formats.
        structures: whether to write ``candidates.extxyz``.
        measured: rows of the table, for the candidates' distances to them.
    """
    picture, target = folder / "candidates.png", run.summary()["target"]
    run.candidates.write_parquet(folder / "candidates.parquet")
    run.candidates.write_csv(folder / "candidates.csv")
    if structures and prototype is not None:
        write_extxyz(run.candidates, prototype, folder / "candidates.extxyz")
    if exports is not None:
        exports.write(run.candidates, prototype, folder)
    kept = {"seed": settings.seed, "run": str(settings.get("run", folder))}
    write_json(folder / "summary.json", {**run.summary(), **kept})
    draw_candidates(run, picture)
    write_report(
        folder / "report.html",
        f"Candidates for {target}",
        text,
        [run_section(run, picture, candidate_view(run.candidates, prototype, measured))],
        OmegaConf.to_container(settings, resolve=True),
    )
