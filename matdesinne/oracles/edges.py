"""Gaps and band edges from the eigenvalues of a calculation."""

from __future__ import annotations

__all__ = ["band_edges"]

import numpy as np
from jaxtyping import Float


def band_edges(valence: Float[np.ndarray, " k"], conduction: Float[np.ndarray, " k"]) -> dict[str, float | int]:
    """Gaps and edges of the highest valence and the lowest conduction band over k-points, in eV."""
    return {
        "band_gap": float(conduction.min() - valence.max()),
        "direct_gap": float((conduction - valence).min()),
        "valence_maximum": float(valence.max()),
        "conduction_minimum": float(conduction.min()),
        "valence_k": int(valence.argmax()),
        "conduction_k": int(conduction.argmin()),
    }
