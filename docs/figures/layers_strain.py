"""Gaps of the layers against biaxial strain: `python docs/figures/layers_strain.py` draws layers_strain.png."""

from pathlib import Path

import pandas
import torch
from matplotlib.figure import Figure

from matdesinne.pipeline import InverseDesign
from matdesinne.reporting.palette import BLUE, GREEN, ORANGE, VERMILLION

ROOT = Path(__file__).parents[2]
LAYERS = {"mos2": ("MoS2", BLUE), "mose2": ("MoSe2", ORANGE), "ws2": ("WS2", GREEN), "wse2": ("WSe2", VERMILLION)}
GAPS = {"band_gap_fine": "band gap, PBE [eV]", "band_gap_hse_soc": "band gap, HSE06 and spin-orbit coupling [eV]"}
STRAINS = torch.linspace(-0.03, 0.06, 91)


def main() -> None:
    """Draw the gaps by the packaged surrogates, and DFT of strains that they never saw."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = dict(zip(GAPS, figure.subplots(1, 2, sharex=True), strict=True))
    for name, (formula, color) in LAYERS.items():
        surrogate = InverseDesign.load(f"pretrained/{name}").surrogate
        a, _, gamma = surrogate.space.reference.tolist()
        lengths = a * (1 + STRAINS)
        means, _ = surrogate.predict(torch.stack([lengths, lengths, torch.full_like(lengths, gamma)], dim=1))
        properties = [prop.name for prop in surrogate.properties]
        labels = pandas.read_parquet(ROOT / "results/relaxed_layers/biaxial" / name / "labels.parquet")
        for gap, panel in panels.items():
            panel.plot(100 * STRAINS, means[:, properties.index(gap)].detach(), color=color, label=formula)
            panel.plot(100 * (labels["a"] / a - 1), labels[gap], "o", color=color, markersize=5)
    for gap, panel in panels.items():
        panel.set_xlabel("biaxial strain [%]")
        panel.set_ylabel(GAPS[gap])
    panels["band_gap_fine"].legend(frameon=False, title="curves: surrogate, points: DFT")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
