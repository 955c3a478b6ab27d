"""From the structure file of a layer to a surrogate of its strained cells: the steps of `design.py layer.cif`."""
