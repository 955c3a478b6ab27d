"""Figures, design rules and a report: `python explore.py`; `run=FOLDER`, or `candidates=[FOLDER,...]` of generate.py."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from matdesinne.cli.config import config_folder, entry_point


@hydra.main(version_base="1.3", config_path=config_folder(), config_name="explore")
@entry_point
def main(config: DictConfig) -> None:
    """Gather designs, let every part draw, write the report."""
    from matdesinne.exploration.designs import gather
    from matdesinne.exploration.sections import PARTS
    from matdesinne.files import list_folder
    from matdesinne.labelling.transitions import check_transitions
    from matdesinne.reporting.report import write_report

    folder = Path(config.folder)
    subject = gather(config, folder)
    targets = "; ".join(table.target.format(table.properties) for table in subject.generated)
    sections = [part(subject, config) for part in PARTS]
    if config.get("oracle") is not None:
        sections.append(check_transitions(subject, config))
    summary = f"{sum(map(len, subject.generated)):,} generated designs for {targets}."
    paper = (
        "Figures with a number show what those of Fung et al., npj Computational Materials 7, 200 (2021), "
        "doi 10.1038/s41524-021-00670-x, show, for the designs and the data of this run."
    )
    settings = OmegaConf.to_container(config, resolve=True)
    write_report(folder / "report.html", "Exploration of a design space", f"{summary}\n\n{paper}", sections, settings)
    print(summary)
    print(list_folder(folder))


if __name__ == "__main__":
    main()
