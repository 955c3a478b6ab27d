"""Figures, design rules and a report: `python explore.py`; `run=FOLDER`, or `candidates=[FOLDER,...]` of generate.py."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from matdesinne.cli.arguments import check_keys, verbatim
from matdesinne.cli.config import config_folder, entry_point


@verbatim("frontier.minimize")
@check_keys("explore")
@hydra.main(version_base="1.3", config_path=config_folder(), config_name="explore")
@entry_point
def main(config: DictConfig) -> None:
    """Gather designs, draw the figures and write the tables of every section, and write the report."""
    from matdesinne.exploration.design_space import design_space_section
    from matdesinne.exploration.designs import gather
    from matdesinne.exploration.frontier.section import frontier_section
    from matdesinne.exploration.rules import design_rules_section
    from matdesinne.exploration.strain import strain_section
    from matdesinne.exploration.transitions.close_pairs import close_pairs_section
    from matdesinne.exploration.transitions.section import find_transitions, transitions_section
    from matdesinne.files import list_folder
    from matdesinne.labelling.transitions import check_transitions
    from matdesinne.reporting.report import write_report

    folder = Path(config.folder)
    exploration = gather(config, folder)
    sections = [
        design_space_section(exploration),
        strain_section(exploration, config.window),
        close_pairs_section(exploration),
        design_rules_section(exploration, config.design),
        *filter(None, [frontier_section(exploration, config)]),
    ]
    transitions = find_transitions(exploration, config)
    sections.append(transitions_section(exploration, transitions))
    if config.get("oracle") is not None:
        sections.append(check_transitions(transitions.best, config, folder))
    targets = "; ".join(table.target.format(table.properties) for table in exploration.generated)
    summary = f"{sum(map(len, exploration.generated)):,} generated designs for {targets}."
    paper = (
        "Figures with a number correspond to those of Fung et al., npj Computational Materials 7, 200 (2021), "
        "doi 10.1038/s41524-021-00670-x, for the designs and the data of this run."
    )
    settings = OmegaConf.to_container(config, resolve=True)
    write_report(folder / "report.html", "Exploration of a design space", f"{summary}\n\n{paper}", sections, settings)
    print(summary)
    print(list_folder(folder))


if __name__ == "__main__":
    main()
