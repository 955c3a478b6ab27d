"""A surrogate of learnt Slater-Koster Hamiltonians."""
