"""A layer whose bands and forces are formulas, behind the interface of GPAW's calculator; worker processes import this file."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from matdesinne.oracles.gpaw import GPAWOracle
from matdesinne.oracles.levels import half_grid

STIFFNESS, SPRING = 20.0, 8.0
LENGTH, HEIGHT = 3.2, 1.6


class ToyCalculator(Calculator):
    """Springs that hold each atom at a height that falls as the cell widens, and a gap that closes with strain.

    The relaxed cell has a = b = 3.2 angstrom and 120 degree.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, size: int) -> None:
        super().__init__()
        self.kpoints = half_grid(size)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.array[:2, :2]
        rest = LENGTH * np.array([[1, 0], [-0.5, 3**0.5 / 2]])
        gradient = np.linalg.solve(rest, cell)  # cell = rest @ gradient
        strain = (gradient @ gradient.T - np.eye(2)) / 2
        z = self.atoms.positions[:, 2] - self.atoms.positions[0, 2]
        wanted = np.sign(z) * HEIGHT * (1 - 0.3 * np.trace(strain))
        pull = SPRING * (z - wanted)
        forces = np.zeros((len(z), 3))
        forces[:, 2] = -pull
        forces[0, 2] = pull.sum()
        slope = STIFFNESS * strain - (pull * np.sign(z)).sum() * HEIGHT * -0.3 * np.eye(2)
        virial = gradient.T @ slope @ gradient  # of the energy by the strain in the laboratory frame
        energy = STIFFNESS / 2 * (strain**2).sum() + (pull**2).sum() / (2 * SPRING)
        stress = np.zeros(6)
        stress[[0, 1, 5]] = virial[[0, 1, 0], [0, 1, 1]] / self.atoms.get_volume()
        self.results = {"energy": energy, "forces": forces, "stress": stress}
        first, second = 2 * np.pi * self.kpoints.T
        lengths, metric = np.linalg.norm(cell, axis=1), cell @ cell.T
        hop = np.cos(first) * (lengths[0] - LENGTH) + np.cos(second) * (lengths[1] - LENGTH)
        shear = metric[0, 1] / lengths.prod() + 0.5
        wave = np.cos(first) + np.cos(second) + np.cos(first + second) + 2 * shear * np.cos(first - second)
        gap = 1.5 - 8 * np.trace(strain) - 0.2 * (wave - 3) + hop
        self.bands = np.stack([-5 - 0 * gap, -gap / 2, gap / 2, 6 + 0 * gap], axis=1)

    def get_ibz_k_points(self):
        return np.pad(self.kpoints, ((0, 0), (0, 1)))

    def get_number_of_electrons(self):
        return 4

    def get_number_of_iterations(self):
        return 1

    def get_fermi_level(self):
        return 0.0

    def get_eigenvalues(self, kpt):
        return self.bands[kpt]

    def fixed_density(self, kpts, **settings):
        other = type(self)(kpts["size"][0])
        other.calculate(self.atoms)
        return other


class ToyOracle(GPAWOracle):
    """GPAW's oracle with the formulas."""

    packages = ("matdesinne",)

    @staticmethod
    def valence_electrons(symbols, functional):
        return 4

    def check(self):
        """It needs no package."""

    def calculator(self, field=0.0, cutoff=None, symmetric=False):
        return ToyCalculator(self.grids[""])


class Threads(ThreadPoolExecutor):
    """Runs the formulas in this process, since a new one takes longer than they do."""

    def __init__(self, workers, preload):
        super().__init__(1)
