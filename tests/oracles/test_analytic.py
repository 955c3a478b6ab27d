import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from matdesinne.errors import DatasetError
from matdesinne.oracles.analytic import AnalyticOracle, Ballistics, Kinematics

from ..toys import line


def test_kinematics_is_a_chain_of_rotations(close):
    x = Kinematics().sample_prior(50, torch.Generator().manual_seed(0)).double()
    ends = []
    for height, *angles in x.numpy():
        end, total = 1j * height, 0.0
        for length, angle in zip((0.5, 0.5, 1.0), angles, strict=True):
            total += angle
            end += length * np.exp(1j * total)
        ends.append([end.real, end.imag])
    close(Kinematics().forward(x), np.array(ends))


def test_kinematics_prior(generator):
    x = Kinematics().sample_prior(20_000, generator)
    torch.testing.assert_close(x.std(0), torch.tensor([0.25, 0.5, 0.5, 0.5]), rtol=0.03, atol=0)
    assert x.mean(0).abs().max() < 0.02


def impact_by_integration(x0, y0, angle, v0) -> float:
    def motion(_, state):
        _, _, vx, vy = state
        return [vx, vy, -0.25 / 0.2 * vx, -9.81 - 0.25 / 0.2 * vy]

    def ground(_, state):
        return state[1]

    ground.terminal, ground.direction = True, -1
    start = [x0, y0, v0 * math.cos(angle), v0 * math.sin(angle)]
    solution = solve_ivp(motion, (0, 100), start, events=ground, rtol=1e-10, atol=1e-12)
    return solution.y_events[0][0][0]


SHOTS = [
    [0.0, 1.5, 0.7, 15.0],
    [-0.4, 0.01, 1.4, 22.0],
    [0.3, 3.0, 0.16, 5.0],
    [0.0, 0.0, 0.8, 10.0],
    [0.2, 2.0, 1.0, 0.0],
    [1.0, 0.5, -0.3, 8.0],
]


@pytest.mark.parametrize("shot", SHOTS)
def test_ballistics_obeys_newton(shot):
    found = Ballistics().forward(torch.tensor([shot], dtype=torch.float64)).item()
    assert found == pytest.approx(impact_by_integration(*shot), abs=1e-6)


def test_ballistics_below_the_ground_may_still_rise():
    shot = [0.0, -0.5, 1.2, 15.0]
    found = Ballistics().forward(torch.tensor([shot], dtype=torch.float64)).item()
    assert found == pytest.approx(impact_by_integration(*shot), abs=1e-6)


def test_ballistics_without_impact():
    shots = torch.tensor([SHOTS[0], [0.0, -5.0, 0.7, 3.0]])
    with pytest.raises(DatasetError, match=r"-5 m in row 1"):
        Ballistics().forward(shots)


def test_ballistics_batch_equals_rows(close):
    shots = torch.tensor(SHOTS, dtype=torch.float64)
    close(Ballistics().forward(shots), torch.cat([Ballistics().forward(shot.unsqueeze(0)) for shot in shots]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", [Kinematics(), Ballistics()], ids=["kinematics", "ballistics"])
def test_dtype_is_kept(problem, dtype):
    x = problem.sample_prior(5, torch.Generator().manual_seed(0)).to(dtype)
    assert problem.forward(x).dtype == dtype


def test_ballistics_prior(generator):
    x0, y0, angle, v0 = Ballistics().sample_prior(20_000, generator).unbind(1)
    assert float(x0.std()) == pytest.approx(0.5, rel=0.03)
    assert float(y0.min()) >= 0
    assert math.radians(9) <= float(angle.min()) and float(angle.max()) <= math.radians(81)
    assert float(v0.mean()) == pytest.approx(15, rel=0.02)
    assert float(v0.var()) == pytest.approx(15, rel=0.05)


def test_ballistics_without_impact_on_request(close):
    shots = torch.tensor([SHOTS[0], [0.0, -5.0, 0.7, 3.0], SHOTS[1]])
    found = Ballistics().forward(shots, strict=False)
    assert found.isnan()[:, 0].tolist() == [False, True, False]
    close(found[[0, 2]], Ballistics().forward(shots[[0, 2]]))


def test_kinematics_has_properties_everywhere(generator):
    x = 10 * Kinematics().sample_prior(100, generator)
    assert torch.equal(Kinematics().forward(x, strict=False), Kinematics().forward(x))


def test_oracle_gives_the_exact_properties():
    x = Kinematics().sample_prior(50, torch.Generator().manual_seed(0)).double()
    oracle = AnalyticOracle(line(4), Kinematics(), {"end_x": "1", "end_y": "1"}, chunk=10)
    rows = oracle.label(x)
    assert [[row["end_x"], row["end_y"]] for row in rows] == Kinematics().forward(x).tolist()


def test_oracle_has_no_labels_for_a_shot_from_below():
    x = torch.tensor([[0.0, 1.0, 0.5, 10.0], [0.0, -50.0, 0.5, 1.0]], dtype=torch.float64)
    rows = AnalyticOracle(line(4), Ballistics(), {"impact": "m"}, chunk=10).label(x)
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert "stays below" in rows[1]["reason"]
