"""Band edges from a GPAW calculation: of its own functional, with spin-orbit coupling, and of a hybrid functional."""

from __future__ import annotations

__all__ = ["EdgeBands", "check_hybrid", "half_grid", "hybrid_bands", "scalar_bands", "spin_orbit_bands"]

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from matdesinne.errors import ConfigError

if TYPE_CHECKING:
    from gpaw import GPAW


class EdgeBands(NamedTuple):
    """Energies in eV of the highest valence band and of the lowest conduction band at the k-points of `half_grid`."""

    valence: Float[np.ndarray, " k"]
    conduction: Float[np.ndarray, " k"]

    def shifted(self, before: EdgeBands, after: EdgeBands) -> EdgeBands:
        """These bands with the shift of each band at each k-point that another calculation found."""
        return EdgeBands(self.valence + after.valence - before.valence, self.conduction + after.conduction - before.conduction)


def half_grid(size: int) -> Float[np.ndarray, "k 2"]:
    """Fractional points of the Gamma-centred size x size grid, of k and -k the later one, in lexicographic order."""
    steps = range(-((size - 1) // 2), size // 2 + 1)

    def opposite(step: int) -> int:
        return step if 2 * step == size else -step  # 1/2 and -1/2 are one point

    return np.array([(i, j) for i in steps for j in steps if (i, j) >= (opposite(i), opposite(j))]) / size


def scalar_bands(calculator: GPAW, size: int) -> EdgeBands:
    """Bands of a finished calculation itself, without spin-orbit coupling.

    Its grid is Gamma-centred with size x size points, and time reversal is its only symmetry.

    Raises:
        RuntimeError: if the k-points are not those of `half_grid`.
    """
    kpoints = calculator.get_ibz_k_points()[:, :2]
    expected = half_grid(size)
    if kpoints.shape != expected.shape or np.abs(kpoints - expected).max() > 1e-6:
        raise RuntimeError(f"GPAW orders the k-points of the {size} x {size} grid in another way than the data sets do.")
    lowest_empty = _occupied_bands(calculator)
    energies = np.array([calculator.get_eigenvalues(kpt=k) for k in range(len(kpoints))])
    return EdgeBands(energies[:, lowest_empty - 1], energies[:, lowest_empty])


def spin_orbit_bands(calculator: GPAW, size: int) -> EdgeBands:
    """Bands with spin-orbit coupling, added to all bands of the calculation without another self-consistent cycle.

    References:
        Olsen, Designing in-plane heterostructures of quantum spin Hall insulators from first principles: 1T'-MoS2 with
        adsorbates, Phys. Rev. B 94, 235106 (2016), doi 10.1103/PhysRevB.94.235106.
    """
    from gpaw.spinorbit import soc_eigenstates

    energies = soc_eigenstates(calculator).eigenvalues()[_rows(calculator.get_bz_k_points(), size)]
    lowest_empty = 2 * _occupied_bands(calculator)
    return EdgeBands(energies[:, lowest_empty - 1], energies[:, lowest_empty])


def hybrid_bands(calculator: GPAW, hybrid: str) -> EdgeBands:
    """Bands of a hybrid functional on the density and wave functions of the calculation, without spin-orbit coupling."""
    from gpaw import GPAW
    from gpaw.hybrids.eigenvalues import non_self_consistent_eigenvalues

    lowest_empty = _occupied_bands(calculator)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wave_functions.gpw"
        calculator.write(file, mode="all")
        finished = GPAW(file, txt=None, legacy_gpaw=False)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            terms = non_self_consistent_eigenvalues(finished, hybrid, lowest_empty - 1, lowest_empty + 1)
    energies, semilocal, exchange = terms
    valence, conduction = (energies - semilocal + exchange)[0].T
    return EdgeBands(valence, conduction)


def check_hybrid(hybrid: str) -> None:
    """Check that GPAW has a hybrid functional.

    Raises:
        ConfigError: if it has not.
    """
    from gpaw.hybrids import parse_name

    try:
        parse_name(hybrid)
    except ValueError as error:
        raise ConfigError(
            f"Expected a hybrid functional of GPAW, e.g. HSE06, got {hybrid!r}: correct oracle.hybrid."
        ) from error


def _occupied_bands(calculator: GPAW) -> int:
    return round(calculator.get_number_of_electrons() / 2)


def _rows(kpoints: Float[np.ndarray, "n 3"], size: int) -> Int[np.ndarray, " k"]:
    """Returns the numbers of the points of `half_grid` among those of the whole grid."""

    def cells(points: Float[np.ndarray, "m d"]) -> Int[np.ndarray, " m"]:
        i, j = np.rint(points[:, :2] * size).astype(int).T % size
        return i * size + j

    number = np.empty(size * size, dtype=int)
    number[cells(kpoints)] = np.arange(size * size)
    return number[cells(half_grid(size))]
