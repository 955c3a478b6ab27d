"""Figure 1, the workflow: `python docs/figures/workflow.py` writes workflow.svg, which README and guide show."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from matdesinne.reporting.palette import BLUE, GREEN, VERMILLION

WIDTH, HEIGHT = 2.5, 1.15
TEXT = "#222222"
BOXES = {
    # name: (column, row, color, title, what it does)
    "space": (0, 1, GREEN, "Design space", "lattice strains and field,\nor any parameters x"),
    "labels": (1, 1, GREEN, "Labels", "DFT (oracles/) computes\ny for some designs"),
    "surrogate": (2, 1, BLUE, "Surrogate", "learns y = f(x), with\ngradients and spread"),
    "model": (3, 1, BLUE, "Generative model", "learns p(x given y) from\nsynthetic designs"),
    "validation": (0, 0, GREEN, "Validation", "DFT labels some\ncandidates again"),
    "localization": (1, 0, VERMILLION, "Localization", "gradients move each\ndesign onto the target"),
    "selection": (2, 0, VERMILLION, "Selection", "drops designs off target\nor outside the bounds"),
    "samples": (3, 0, VERMILLION, "Sampling", "designs for the target,\nfor example 1 eV"),
}
ARROWS = [
    ("space", "labels", ""),
    ("labels", "surrogate", ""),
    ("surrogate", "model", ""),
    ("model", "samples", "target y"),
    ("samples", "selection", ""),
    ("selection", "localization", ""),
    ("localization", "validation", ""),
    ("surrogate", "selection", "predictions"),
    ("surrogate", "localization", "gradients"),
    ("validation", "space", "new rows"),
]


def place(name: str) -> tuple[float, float]:
    """Returns the middle of a box."""
    column, row, *_ = BOXES[name]
    return 3.2 * column, 2.1 * row


def draw_box(axis: Axes, name: str) -> None:
    """Draw one box with its title and what it does."""
    (x, y), (_, _, color, title, text) = place(name), BOXES[name]
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    style = {"boxstyle": "round,pad=0.05,rounding_size=0.12", "facecolor": f"{color}22", "edgecolor": color, "linewidth": 1.5}
    axis.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, **style))
    axis.text(x, y + 0.33, title, ha="center", va="center", fontsize=11, fontweight="bold", color=TEXT)
    axis.text(x, y - 0.2, text, ha="center", va="center", fontsize=8.5, color=TEXT)


def draw_arrow(axis: Axes, first: str, second: str, label: str) -> None:
    """Draw an arrow between the borders of two boxes, with its label to the right of the middle."""
    (x0, y0), (x1, y1) = place(first), place(second)
    if y0 == y1:
        side = 1 if x1 > x0 else -1
        start, end = (x0 + side * (WIDTH / 2 + 0.06), y0), (x1 - side * (WIDTH / 2 + 0.06), y1)
    else:
        side, aside = (1 if y1 > y0 else -1), 0.3 * (x1 - x0)
        start, end = (x0 + aside, y0 + side * (HEIGHT / 2 + 0.06)), (x1 - aside, y1 - side * (HEIGHT / 2 + 0.06))
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": TEXT, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0})
    if label:
        axis.text(
            (start[0] + end[0]) / 2 + (0.12 if x0 == x1 else 0.4),
            (start[1] + end[1]) / 2,
            label,
            ha="left",
            va="center",
            fontsize=9,
            color=TEXT,
        )


def main() -> None:
    """Draw the workflow."""
    matplotlib.rcParams["svg.hashsalt"] = "workflow"  # the same file each time
    figure = Figure(figsize=(9.6, 3.5), facecolor="white")
    axis = figure.add_axes((0, 0, 1, 1))
    for name in BOXES:
        draw_box(axis, name)
    for first, second, label in ARROWS:
        draw_arrow(axis, first, second, label)
    upper = "Training, once: data/, surrogates/, models/, training/"
    axis.text(-WIDTH / 2, 3.05, upper, ha="left", va="center", fontsize=10, color=BLUE)
    lower = "Generation, for each target: pipeline.py, selection.py, localization.py, labelling/"
    axis.text(-WIDTH / 2, -0.95, lower, ha="left", va="center", fontsize=10, color=VERMILLION)
    axis.set(xlim=(-1.45, 11.05), ylim=(-1.25, 3.3))
    axis.set_axis_off()
    folder = Path(__file__).parent
    figure.savefig(folder / "workflow.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
