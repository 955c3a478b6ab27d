"""Figures, design rules and a report: `python explore.py`; `run=FOLDER`, or `candidates=[FOLDER,...]` of generate.py."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from matdesinne.config import config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="explore")
@entry_point
def main(config: DictConfig) -> None:
    """Gather designs, let every part draw, write the report."""
    from matdesinne.exploration.parts import PARTS
    from matdesinne.exploration.report import write_report
    from matdesinne.exploration.subject import gather

    folder = Path(config.folder)
    subject = gather(config, folder)
    targets = "; ".join(table.target.describe(table.properties) for table in subject.generated)
    sections = [part(subject, config) for part in PARTS]
    summary = f"{sum(map(len, subject.generated)):,} generated designs for {targets}."
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    write_report(folder / "report.html", "Exploration of a design space", summary, sections, settings)
    print(summary)
    print(f"Wrote {', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))} to {folder}")


if __name__ == "__main__":
    main()
