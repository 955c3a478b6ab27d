"""Colours that colour-blind readers tell apart."""

__all__ = ["BLUE", "CYCLE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VALUES", "VERMILLION"]

# Okabe and Ito, Color universal design (2008), https://jfly.uni-koeln.de/color/
BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
ORANGE = "#E69F00"
SKY = "#56B4E9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""One after another for the lines of a plot."""
GREY = "#999999"
"""What is only there for comparison."""
VALUES = "viridis"
"""Map for values of a property; its lightness rises evenly."""
