import importlib.util

import numpy as np
import pytest
import torch
from ase.calculators.test import FreeElectrons
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.errors import ConfigError
from matdesinne.oracles.ase import ASEOracle

from ..toys import CONF, load_part

KPOINTS = [[0.0, 0.0, 0.0], [0.25, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.5, 0.0]]
FREE = {"_target_": "ase.calculators.test.FreeElectrons", "nvalence": 6, "nbands": 8, "kpts": KPOINTS}
GPAW = {
    "_target_": "gpaw.GPAW",
    "mode": {"name": "pw", "ecut": 300},
    "xc": "PBE",
    "kpts": {"size": [9, 9, 1], "gamma": True},
    "occupations": {"name": "fermi-dirac", "width": 0.05},
    "nbands": 16,
    "mixer": {"backend": "pulay", "beta": 0.25, "nmaxold": 5, "weight": 50},
    "convergence": {"density": 1e-3, "eigenstates": 1e-4, "bands": 14},
    "txt": None,
}
"""The numerics of mos2_gpaw in the words that GPAW has for ASE, on the k-points that the symmetry of the cell leaves."""


FROZEN = {"relax": False, "relax_force": 0.01, "relax_steps": 40}


class Springs(FreeElectrons):
    """Free electrons whose atoms are held at z = 5, 6 and 7 angstrom by springs."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        shift = np.zeros((3, 3))
        shift[:, 2] = atoms.positions[:, 2] - [5.0, 6.0, 7.0]
        self.results |= {"energy": (shift**2).sum(), "forces": -2 * shift}


class InField(FreeElectrons):
    """Free electrons whose conduction band rises with the field; it writes a file where it works."""

    default_parameters = {**FreeElectrons.default_parameters, "tilt": 0.0}  # noqa: RUF012

    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)
        with open("charge", "x") as stream:
            stream.write("6")
        self.eigenvalues[:, 3:] += self.parameters.tilt

    def get_number_of_electrons(self):
        return 6


@pytest.fixture(scope="module")
def parts():
    return {name: load_part(name) for name in ("space", "prototype")}


def oracle(parts, calculator=FREE, **changes) -> ASEOracle:
    settings = {"valence_bands": 3, "field_keyword": None, "field_factor": 1.0, **FROZEN, **changes}
    return ASEOracle(parts["space"], parts["prototype"], calculator, **settings)


def reference(parts, field: float = 0.0) -> torch.Tensor:
    x = parts["space"].reference.double().unsqueeze(0)
    x[0, -1] = field
    return x


def test_edges_are_those_of_the_bands(parts):
    [row] = oracle(parts).label(reference(parts))
    assert row["status"] == "done", row["reason"]
    atoms = parts["prototype"].atoms(dict(zip(parts["space"].names, reference(parts)[0].tolist(), strict=True)))
    atoms.calc = FreeElectrons(nvalence=6, nbands=8, kpts=KPOINTS)
    atoms.get_potential_energy()
    bands = np.array([atoms.calc.get_eigenvalues(k) for k in range(4)])
    assert row["band_gap"] == pytest.approx(bands[:, 3].min() - bands[:, 2].max())
    assert row["direct_gap"] == pytest.approx((bands[:, 3] - bands[:, 2]).min())
    assert row["valence_kpoint"] == KPOINTS[bands[:, 2].argmax()]
    assert row["conduction_kpoint"] == KPOINTS[bands[:, 3].argmin()]


def test_field_goes_to_its_keyword(parts, tmp_path, monkeypatch):
    """In a folder of its own each time: the calculator would stumble over its file."""
    monkeypatch.chdir(tmp_path)
    calculator = {**FREE, "_target_": f"{__name__}.InField"}
    made = oracle(parts, calculator, valence_bands=None, field_keyword="tilt", field_factor=2.0)
    [still], [tilted] = made.label(reference(parts)), made.label(reference(parts, 0.25))
    assert tilted["status"] == "done", tilted["reason"]
    assert tilted["band_gap"] - still["band_gap"] == pytest.approx(0.5)
    assert list(tmp_path.iterdir()) == []


def test_field_is_not_left_out_silently(parts):
    [row] = oracle(parts).label(reference(parts, 0.25))
    assert row["status"] == "failed" and "field_keyword" in row["reason"]


def test_atoms_are_relaxed(parts):
    made = oracle(parts, {**FREE, "_target_": f"{__name__}.Springs"}, relax=True)
    [row] = made.label(reference(parts))
    assert row["status"] == "done", row["reason"]
    assert set(row) >= set(made.columns())
    assert row["thickness"] == pytest.approx(2.0, abs=0.02)
    np.testing.assert_allclose(row["relaxed_positions"][2::3], [5.0, 6.0, 7.0], atol=0.02)
    assert row["energy"] == pytest.approx(0.0, abs=1e-3) and row["energy_gain"] > 0.1


def test_relaxation_that_does_not_converge(parts):
    [row] = oracle(parts, {**FREE, "_target_": f"{__name__}.Springs"}, relax=True, relax_steps=1).label(reference(parts))
    assert row["status"] == "failed" and "did not converge" in row["reason"]


def test_calculator_without_forces(parts):
    [row] = oracle(parts, relax=True).label(reference(parts))
    assert row["status"] == "failed" and "forces" in row["reason"]


@pytest.mark.parametrize("target", ["nowhere.Calculator", "ase.calculators.test.Nothing", "nothing"])
def test_missing_calculator(parts, target):
    with pytest.raises(ConfigError, match="calculator"):
        oracle(parts, {"_target_": target}).check()


def test_calculator_without_a_class(parts):
    with pytest.raises(ConfigError, match="_target_"):
        oracle(parts, {"xc": "pbe"})


def test_shown_settings_are_keywords_of_vasp(parts):
    """Building it checks each name."""
    config = OmegaConf.merge(OmegaConf.load(CONF / "oracle" / "ase.yaml"), {"space": parts["space"].to_dict(), "prototype": {}})
    calculator = instantiate({**config.calculator, config.field_keyword: 0.5}, _convert_="all")
    assert calculator.float_params["efield"] == 0.5


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="needs GPAW: make gpaw installs it")
def test_real_code_by_the_interface_of_ase(parts):
    """The unstrained cell has a direct gap of 1.740 eV at K, as the card of mos2_gpaw says."""
    made = oracle(parts, GPAW, valence_bands=None)
    made.check()
    [row] = made.label(reference(parts))
    assert row["status"] == "done", row["reason"]
    assert row["band_gap"] == pytest.approx(1.740, abs=2e-3)
    assert row["direct_gap"] == pytest.approx(row["band_gap"], abs=1e-6)
    for name in ("valence_kpoint", "conduction_kpoint"):
        np.testing.assert_allclose(np.sort(np.abs(row[name])), [0, 1 / 3, 1 / 3], atol=1e-6)
