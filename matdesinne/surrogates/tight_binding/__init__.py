"""A surrogate made of Slater-Koster Hamiltonians with learned integrals."""
