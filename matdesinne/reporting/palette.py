"""Colours that colour-blind readers can tell apart."""

__all__ = ["BLUE", "CYCLE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VALUES", "VERMILLION"]

# Okabe and Ito, Color universal design (2008), https://jfly.uni-koeln.de/color/
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Colours of the lines of a plot, in this order."""
GREY = "#999999"
"""Colour of what is shown only for comparison."""
VALUES = "viridis"
"""Colour map for the values of a property; its lightness rises evenly."""
