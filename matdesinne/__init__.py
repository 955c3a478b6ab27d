"""MatDesINNe: inverse design of materials with invertible neural networks and surrogate gradients."""

__all__ = ["__version__"]

__version__ = "0.2.0"
