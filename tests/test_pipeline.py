import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from matdesinne.data.sources import PackagedSource
from matdesinne.errors import CheckpointError, ConfigError, DeviceError, EmptyResultError, TargetError
from matdesinne.localization import MeanGradientDescent, Newton
from matdesinne.models.base import InverseModel
from matdesinne.network import Batch, load_network, save_network
from matdesinne.oracles.analytic import Kinematics
from matdesinne.pipeline import InverseDesign, Refinement
from matdesinne.selection import All, Expression, Tolerance
from matdesinne.structures import enclose_volume, write_extxyz
from matdesinne.surrogates.combined import CombinedSurrogate
from matdesinne.targets import Target

from .toys import CONF, Linear, box, line, linear, load_part, prop, rows, tiny_network, yaml_files

SPACE, GAP = box(), [prop("band_gap", floor=0.0)]


def parts(space=SPACE, properties=GAP):
    model = tiny_network(CONF / "model" / "mdn.yaml", space, properties)
    surrogate = tiny_network(CONF / "surrogate" / "mlp.yaml", space, properties)
    batch = rows(space, 256, outputs=len(properties))
    model.fit_scales(batch)
    surrogate.fit_scales(batch)
    return model, surrogate


def design(selection=None, localization=None, **settings) -> InverseDesign:
    return InverseDesign(*parts(), selection or All([]), localization, **settings)


def exact_design(selection) -> InverseDesign:
    """With a surrogate whose predictions vary."""
    return InverseDesign(parts()[0], Linear(SPACE, GAP, [[1.0, 1.0]]), selection)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_stages_in_order():
    run = design(localization=Newton(), accepted_error=10.0).run([None, 5.0], 50, seeded())
    assert list(run.stages) == list(run.seconds) == ["sampled", "selected", "localized"]
    assert [table.stage for table in run.stages.values()] == ["sampled", "selected", "localized"]


@pytest.mark.slow
def test_no_localization_stops_after_selection():
    run = design().run([None, 5.0], 50, seeded())
    assert list(run.stages) == ["sampled", "selected"]
    assert run.candidates.stage == "selected"


def test_sampled_count():
    assert len(design().run(1.0, 50, seeded()).stages["sampled"]) == 50


@pytest.mark.slow
def test_same_seed_same_candidates():
    runs = [design().run(0.1, 50, seeded(seed)).candidates.designs for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.slow
def test_bounds_hold_and_are_filled_up():
    made = InverseDesign(parts()[0], EXACT, All([]), Newton())
    run = made.run(0.5, 200, seeded(), bounds={"x1": [0.1, None]})
    assert all(len(table) == 200 for table in list(run.stages.values())[:2])
    assert all((table.designs[:, 0] >= 0.1).all() for table in run.stages.values())
    assert run.outside > 0 and run.candidates.error.max() <= 0.01


@pytest.mark.parametrize("bounds", [None, {"x1": [0.0, None]}])
def test_samples_are_truncated_or_not(bounds, monkeypatch):
    """The choice reaches the model, also where samples outside bounds are replaced."""
    made, asked = design(), []
    plain = made.model.sample
    monkeypatch.setattr(made.model, "sample", lambda y, generator, truncate: asked.append(truncate) or plain(y, generator))
    for choice in ({}, {"truncate": False}):
        made.run(0.1, 50, seeded(), bounds=bounds, **choice)
    assert asked[0] is True and asked[-1] is False


def test_bounds_keep_the_samples_within():
    """Rejection: they are samples of the model, in their order."""
    model = parts()[0]
    everything = model.sample(torch.full((200, 1), 0.1), seeded())
    some, drawn = model.sample_target(Target((0.1,), (0.1,)), 200, seeded(), model.space.narrowed({"x2": [None, 0.0]}))
    expected = everything[everything[:, 1] <= 0]
    assert torch.equal(some[: len(expected)], expected)
    assert len(some) == 200 and drawn % 200 == 0


def test_fixed_values_hold():
    made = InverseDesign(parts()[0], EXACT, All([]), Newton())
    run = made.run(0.5, 50, seeded(), fixed={"x2": 0.1})
    assert all((table.designs[:, 1] == torch.tensor(0.1)).all() for table in run.stages.values())
    assert len(run.candidates) == 50 and run.candidates.error.max() <= 0.01


@pytest.mark.slow
def test_too_narrow_bounds():
    with pytest.raises(EmptyResultError, match="within the bounds, got none of 500"):
        design().run(0.1, 5, seeded(), bounds={"x1": [0.123456, 0.123457]})


def test_bounds_outside_the_space():
    with pytest.raises(ConfigError, match="x1"):
        design().run(0.1, 5, seeded(), bounds={"x1": [0.0, 1e6]})


def test_selection_is_applied():
    run = exact_design(All([Tolerance(0.2)])).run(0.1, 200, seeded())
    assert 0 < len(run.candidates) < 200
    assert run.candidates.error.max() <= 0.2


def test_accepted_error_is_applied():
    exact = Linear(SPACE, GAP, [[1.0, 1.0]])
    # two evaluations with short steps: near rows arrive, far ones do not
    made = InverseDesign(parts()[0], exact, All([]), Newton(steps=2), accepted_error=1e-3)
    run = made.run(0.5, 200, seeded())
    assert 0 < len(run.candidates) < 200
    assert run.candidates.error.max() <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, -5])
def test_needs_samples(count):
    with pytest.raises(ConfigError, match="num_samples"):
        design().run(1.0, count)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["abc", -1.0, [2, 1]])
def test_bad_target(target):
    with pytest.raises(TargetError, match="band_gap"):
        design().run(target, 5)


def test_nothing_left():
    with pytest.raises(EmptyResultError, match=r"band_gap = 100 eV.*'selected'"):
        design(All([Tolerance(0.01)])).run(100.0, 20, seeded())


@pytest.mark.slow
def test_nothing_accepted():
    with pytest.raises(TargetError, match="reach band_gap from"):
        design(localization=Newton(), accepted_error=0.01).run(100.0, 20, seeded())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "properties"),
    [(box(scale=2.0), GAP), (box(3), GAP), (SPACE, [prop("band_gap")]), (SPACE, [prop("energy", floor=0.0)])],
    ids=["bounds", "dimension", "floor", "name"],
)
def test_mismatched_parts(space, properties):
    with pytest.raises(ConfigError, match="one data set"):
        InverseDesign(parts()[0], parts(space, properties)[1])


def test_parts_are_in_evaluation_mode():
    made = design()
    assert not made.model.training and not made.surrogate.training


def test_save_and_load(tmp_path):
    made = design()
    made.save(tmp_path)
    again = InverseDesign.load(tmp_path, All([]))
    again.refinement.localization = None
    first, second = (d.run([0.1, 0.3], 50, seeded()).candidates for d in (made, again))
    assert torch.equal(first.designs, second.designs)
    assert torch.equal(first.mean, second.mean)
    assert again.surrogate.prototype is None


@pytest.mark.slow
@pytest.mark.parametrize("path", yaml_files("surrogate"), ids=lambda path: path.stem)
def test_prototype_is_kept_with_the_surrogate(tmp_path, path):
    space = load_part("space")
    prototype = instantiate(OmegaConf.load(CONF / "prototype" / "mos2.yaml"), _convert_="all")
    surrogate = tiny_network(path, space, GAP, prototype=prototype)
    InverseDesign(tiny_network(CONF / "model" / "mdn.yaml", space, GAP), surrogate).save(tmp_path)
    assert InverseDesign.load(tmp_path).surrogate.prototype == prototype


def test_a_folder_holds_four_files(tmp_path):
    design().save(tmp_path)
    names = [f"{part}.{suffix}" for part in ("model", "surrogate") for suffix in ("json", "safetensors")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.slow
def test_the_accurate_surrogate_is_saved_too(tmp_path):
    _, accurate = parts(properties=[prop("band_gap_fine", floor=0.0)])
    made = design(accurate_surrogate=accurate)
    made.save(tmp_path)
    again = InverseDesign.load(tmp_path, refine_with="band_gap_fine", further=["width"])
    x = rows(SPACE, 20).x
    assert torch.equal(again.accurate_surrogate.predict_many(x)[0], made.accurate_surrogate.predict_many(x)[0])
    assert InverseDesign.load(tmp_path).accurate_surrogate is None


def test_an_accurate_surrogate_of_an_older_version(tmp_path):
    design().save(tmp_path)
    (tmp_path / "finisher_band_gap.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"finisher_band_gap.*train again"):
        InverseDesign.load(tmp_path, refine_with="band_gap")


def test_a_run_without_a_surrogate(tmp_path):
    made = design()
    save_network(made.model, tmp_path, "model")
    with pytest.raises(CheckpointError, match="surrogate=null"):
        InverseDesign.load(tmp_path)
    assert isinstance(load_network(InverseModel, tmp_path, "model"), InverseModel)


def test_load_localizes_by_default(tmp_path):
    design().save(tmp_path)
    assert isinstance(InverseDesign.load(tmp_path).refinement.localization, Newton)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "surrogate.json", "surrogate.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_load_rejects_a_damaged_folder(tmp_path, name, damage):
    design().save(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "truncated" else b"")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        InverseDesign.load(tmp_path)


def test_load_rejects_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        InverseDesign.load(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("content", ["[]", "3", "{}", "null", '"text"'])
@pytest.mark.parametrize("name", ["model.json", "surrogate.json"])
def test_load_rejects_a_foreign_declaration(tmp_path, name, content):
    design().save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match="train"):
        InverseDesign.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("prototype", [3, {"atoms": []}, {"symbols": ["Mo"]}])
def test_load_rejects_a_foreign_prototype(tmp_path, prototype):
    design().save(tmp_path)
    description = json.loads((tmp_path / "surrogate.json").read_text())
    description["settings"]["prototype"] = prototype
    (tmp_path / "surrogate.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="train"):
        InverseDesign.load(tmp_path)


def test_load_rejects_a_surrogate_as_model(tmp_path):
    made = design()
    made.save(tmp_path)
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"surrogate{suffix}").replace(tmp_path / f"model{suffix}")
    made.save(tmp_path / "other")
    for suffix in (".json", ".safetensors"):
        (tmp_path / "other" / f"surrogate{suffix}").replace(tmp_path / f"surrogate{suffix}")
    with pytest.raises(CheckpointError, match="InverseModel"):
        InverseDesign.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpu", "abc", "cuda:99"])
def test_missing_device(name):
    with pytest.raises(DeviceError, match=name):
        design().to(name)


def test_summary_is_finite_json(tmp_path):
    summary = design(localization=Newton(), accepted_error=10.0).run([None, 0.5], 50, seeded()).summary()
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text)["counts"]["sampled"] == 50


def test_summary_counts():
    run = exact_design(All([Tolerance(0.2)])).run(0.1, 200, seeded())
    summary = run.summary()
    assert summary["counts"] == {name: len(table) for name, table in run.stages.items()}
    assert summary["share_kept"] == len(run.candidates) / 200
    assert math.isclose(summary["mae"]["selected"]["band_gap [eV]"], run.candidates.error.mean().item(), rel_tol=1e-6)


def test_outside_is_zero_in_a_box():
    assert design().run(0.1, 200, seeded()).outside == 0


def test_report_names_target_and_units():
    report = design().run(0.1, 20, seeded()).report()
    assert "band_gap = 0.1 eV" in report
    assert "sampled" in report and "selected" in report


EXACT = Linear(SPACE, GAP, [[1.0, 1.0]])
TARGET = Target.parse(0.5, GAP)


def test_report_prints_rounding_errors_as_zero():
    """An exact surrogate and Newton's projection leave what float32 rounds."""
    run = InverseDesign(parts()[0], EXACT, All([]), Newton(1e-7)).run(0.5, 50, seeded())
    assert 0 < run.candidates.error.mean() < 1e-6
    *_, localized, _ = run.report().splitlines()
    assert localized.split()[0] == "localized" and localized.endswith("mean |band_gap - target| 0 eV")


def refined(designs: torch.Tensor, *settings: object):
    return Refinement(EXACT, *settings).refine(designs, TARGET)


def test_refinement_takes_designs_of_any_origin():
    designs = rows(SPACE, 100).x
    run = refined(designs, All([Tolerance(0.3)]), Newton())
    assert torch.equal(run.stages["sampled"].designs, designs)
    assert torch.equal(run.stages["selected"].designs, designs[(designs.sum(1) - 0.5).abs() <= 0.3])
    assert run.candidates.error.max() <= 0.01


@pytest.mark.slow
def test_refinement_of_a_design_is_that_of_its_run():
    made = InverseDesign(parts()[0], EXACT, All([Tolerance(0.3)]), Newton())
    run = made.run(0.5, 100, seeded())
    again = made.refinement.refine(run.stages["sampled"].designs, TARGET)
    assert torch.equal(run.candidates.designs, again.candidates.designs)


def test_refinement_reports_the_time_of_sampling():
    run = Refinement(EXACT, localization=Newton()).refine(rows(SPACE, 20).x, TARGET, 7.5)
    assert list(run.seconds) == ["sampled", "selected", "localized"]
    assert run.seconds["sampled"] == 7.5 and min(run.seconds.values()) > 0


def test_refinement_drops_what_is_outside_or_far_by_default():
    designs = torch.tensor([[0.3, 0.3], [1.5, -1.0], [-0.9, -0.9]])
    run = refined(designs)
    assert run.outside == 1
    assert torch.equal(run.candidates.designs, designs[:1])


@pytest.mark.slow
def test_refinement_of_designs_that_localization_takes_out():
    """The published descent knows no bounds; what it moves outside is not accepted."""
    with pytest.raises(EmptyResultError, match="'localized'"):
        Refinement(EXACT, All([]), MeanGradientDescent(0.1, 300)).refine(torch.tensor([[1.0, -1.0]]), Target.parse(2.5, GAP))


def test_refinement_puts_the_surrogate_into_evaluation_mode():
    assert not Refinement(linear().train()).surrogate.training


def test_run_leaves_the_global_seed(untouched_seed):
    design(localization=Newton(), accepted_error=10.0).run([None, 5.0], 20, seeded())


def refined_accurately(**settings: object):
    """A slope of 1 from the fast surrogate; the accurate one calls it a better property, 1.25 as steep."""
    accurate = Linear(SPACE, [prop("band_gap_fine", floor=0.0)], [[1.25, 1.25]])
    refinement = Refinement(Linear(SPACE, GAP, [[1.0, 1.0]]), All([]), Newton(), accurate_surrogate=accurate, **settings)
    designs = SPACE.sample(60, seeded())
    return refinement.refine(designs, Target.parse(0.5, GAP)), designs


def test_the_accurate_surrogate_has_the_last_word(close):
    run, _ = refined_accurately()
    assert list(run.stages) == list(run.seconds) == ["sampled", "selected", "localized", "refined"]
    last = run.candidates
    assert [p.name for p in last.properties] == ["band_gap_fine"] and last.stage == "refined"
    assert (1.25 * last.designs.sum(1) - 0.5).abs().max() < 1e-3
    assert "band_gap_fine" in run.report() and "band_gap_fine [eV]" in json.dumps(run.summary()["mae"]["refined"])


def test_the_accurate_surrogate_moves_what_was_localized(close):
    run, _ = refined_accurately()
    before, after = run.stages["localized"].designs, run.candidates.designs
    # from x1 + x2 = 0.5 to 0.4 by the shortest way
    close(after, before - 0.05, factor=1e2)


def test_what_the_accurate_surrogate_cannot_reach_is_dropped():
    steep = Linear(SPACE, [prop("band_gap_fine", floor=0.0)], [[0.01, 0.01]])
    with pytest.raises(EmptyResultError, match="refined"):
        Refinement(linear_gap(), All([]), Newton(), accurate_surrogate=steep).refine(
            SPACE.sample(20, seeded()), Target.parse(0.5, GAP)
        )


def test_a_rule_holds_for_the_moved_designs():
    """All start at x1 < 0.2; localization takes some across."""
    designs = SPACE.sample(200, seeded()).clamp_max(0.19)
    rule = Expression("x1 < 0.2")
    free, ruled = (Refinement(linear_gap(), All(rules), Newton()).refine(designs, TARGET) for rules in ([], [rule]))
    crossed = free.candidates.designs[:, 0] >= 0.2
    assert crossed.any() and len(ruled.stages["selected"]) == 200
    assert torch.equal(ruled.candidates.designs, free.candidates.designs[~crossed])


def test_a_rule_on_the_property_is_asked_of_the_accurate_surrogate():
    accurate = Linear(SPACE, [prop("band_gap_fine", floor=0.0)], [[1.25, 1.25]])
    kept = Refinement(linear_gap(), Expression("0.4999 < band_gap < 0.5001"), Newton(), accurate_surrogate=accurate)
    designs = torch.tensor([[0.25, 0.25], [0.3, 0.2]])
    assert len(kept.refine(designs, TARGET).candidates) == 2


def linear_gap() -> Linear:
    return Linear(SPACE, GAP, [[1.0, 1.0]])


@pytest.mark.parametrize("layer", ["mos2", "mose2", "ws2", "wse2"])
def test_pretrained_layers(layer):
    """Their surrogates know the rows that they were trained on, and candidates have relaxed atoms."""
    design = InverseDesign.load(f"pretrained/{layer}")
    source, space = PackagedSource(f"tmd_strain_{layer}"), design.model.space
    table = source.load(space, design.surrogate.properties)
    known = table.y[:, 0].isfinite()
    errors = (design.surrogate.predict_many(table.x)[0] - table.y).abs()[known]
    assert errors[:, 0].median() < 0.01 and errors[:, 3].median() < 0.001
    run = design.run({"band_gap_fine": 1.0, "strain_energy": [None, 0.25]}, 20, seeded())
    assert len(run.candidates) == 20
    assert design.surrogate.prototype.response is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["band_gap", "band_gap_fine"])
def test_pretrained_accurate_surrogates(name):
    run = InverseDesign.load("pretrained", refine_with=name).run(1.0, 6, seeded())
    assert run.candidates.properties[0].name == name
    assert run.candidates.error.max() < 1e-3


@pytest.mark.slow
def test_no_such_accurate_surrogate(tmp_path):
    with pytest.raises(CheckpointError, match="accurate_wrong"):
        InverseDesign.load("pretrained", refine_with="wrong")


@pytest.mark.slow
def test_generating_imports_nothing_slow_that_it_does_not_need():
    """The import of each takes as long as ten thousand candidates."""
    slow = ["pytorch_lightning", "ase", "FrEIA", "scipy.stats", "pandas", "sklearn"]
    words = "import sys; from matdesinne.pipeline import InverseDesign; import matdesinne.structures; "
    words += f"InverseDesign.load('pretrained').run(1.0, 100); print([name for name in {slow} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True, cwd=CONF.parent)
    assert found.stdout.strip() == "[]"


def test_cells_without_a_volume_are_dropped(tmp_path):
    """A target far outside sends all angles to the corner where they enclose none; the files of the others can be written."""
    space = load_part("space")
    wide = [replace(p, lower=60.0, upper=150.0) if p.unit == "degree" else p for p in space.parameters]
    surrogate = Linear(replace(space, parameters=wide), [prop("band_gap")], [[0.0, 0.0, 0.0, 1.0, 1.0, -1.0, 0.0]]).eval()
    surrogate.prototype = load_part("prototype")
    start = surrogate.space.sample(200, seeded())
    start = start[enclose_volume(start[:, :6])]
    moved = Refinement(surrogate, All(), Newton(), 1e9)
    with pytest.raises(EmptyResultError, match="the angles of a cell enclose a volume rejects"):
        moved.refine(start, Target.parse(-1e4, surrogate.properties))
    run = moved.refine(start, Target.parse([0.0, 20.0], surrogate.properties))
    assert len(run.candidates) > 0 and enclose_volume(run.candidates.designs[:, :6]).all()
    write_extxyz(run.candidates, surrogate.prototype, tmp_path / "candidates.extxyz")
    flat = torch.tensor([[3.0, 3.0, 12.0, 60.0, 60.0, 130.0, 0.0]])
    kept = moved.refine(torch.cat([flat, start]), Target.parse([-1e9, 1e9], surrogate.properties)).stages["selected"]
    assert len(kept) == len(start)


ENERGY, WIDTH = prop("energy"), prop("width")


class Bowl(Linear):
    """y = sum of a x^2."""

    def member_predictions(self, features):
        return (self.features.scale.inverse(features).square() @ self.matrix.T).unsqueeze(0)


def with_energy(**settings) -> InverseDesign:
    """A model of the gap, and a surrogate of the gap and of an energy."""
    surrogate = CombinedSurrogate([Linear(SPACE, GAP, [[1.0, 1.0]]), Bowl(SPACE, [ENERGY], [[1.0, 1.0]])])
    return InverseDesign(parts()[0], surrogate, All(), Newton(), **settings)


@pytest.mark.parametrize("target", [0.5, {"band_gap": 0.5}, Target((0.5,), (0.5,)), Target((0.5, -math.inf), (0.5, math.inf))])
def test_a_bare_number_means_the_property_of_the_model(target):
    run = with_energy().run(target, 30, seeded())
    assert run.candidates.target == Target((0.5, -math.inf), (0.5, math.inf))
    assert run.summary()["target"] == "band_gap = 0.5 eV"
    expected = run.candidates.designs.square().sum(dim=1)
    torch.testing.assert_close(run.candidates.mean[:, 1], expected)
    assert "energy" not in run.report() and {"energy", "energy_std", "target"} <= set(run.candidates.columns())


def test_two_properties_at_once():
    run = with_energy().run({"band_gap": 0.5, "energy": [None, 0.2]}, 100, seeded())
    assert run.candidates.error.max() < 1e-3 and run.candidates.mean[:, 1].max() < 0.201
    assert run.candidates.mean[:, 1].std() > 1e-3
    assert list(run.metrics())[-1] == "localized/mae_energy"


def test_samples_far_from_what_the_model_does_not_know_are_localized():
    """They were not drawn for it: the tolerance of the selection is that of the gap."""
    made = with_energy()
    made.refinement = Refinement(made.surrogate, All([Tolerance(0.5)]), Newton())
    run = made.run({"band_gap": 0.5, "energy": 0.2}, 100, seeded())
    near = run.stages["sampled"].error[:, 0] <= 0.5
    assert len(run.stages["selected"]) == near.sum()
    assert run.stages["selected"].error[:, 1].max() > 0.5 and run.candidates.error.max() < 1e-3


def test_the_mean_objective_counts_every_start():
    made = with_energy(minimize="(x1 - x2) ** 2 * (x1 - 0.4) ** 2")
    run = made.run(0.5, 40, seeded())
    objectives = run.summary()["objective"]
    assert len(run.candidates) > 1 and objectives["minimized"] <= objectives["localized"]


def test_a_target_for_what_the_model_does_not_know():
    run = with_energy().run({"energy": 0.3}, 50, seeded())
    assert run.candidates.error.max() < 1e-3 and run.candidates.mean[:, 0].std() > 0.05


@pytest.mark.parametrize("target", [{"wrong": 1.0}, {}, {"energy": "a"}, [1.0, 2.0, 3.0]])
def test_bad_targets_of_several_properties(target):
    with pytest.raises(TargetError):
        with_energy().run(target, 5, seeded())


def test_minimize_is_a_stage():
    run = with_energy(minimize="energy").run(0.5, 40, seeded())
    assert list(run.stages) == list(run.seconds) == ["sampled", "selected", "localized", "minimized"]
    last, before = run.candidates, run.stages["localized"]
    assert last.stage == "minimized" and len(last) == 1
    assert last.designs[0].tolist() == pytest.approx([0.25, 0.25], abs=1e-3)
    assert last.columns()["starts"] == ("1", [float(len(before))])
    summary = run.summary()
    assert summary["minimized"] == "energy" and summary["objective"]["minimized"] == pytest.approx(0.125, abs=1e-4)
    assert summary["objective"]["localized"] == pytest.approx(before.mean[:, 1].mean().item())
    assert f"minima of energy (designs that ended there): 0.125 ({len(before)})" in run.report()
    assert run.metrics()["minimized/mean_objective"] == summary["objective"]["minimized"]


def test_minimize_keeps_the_rules():
    made = with_energy(minimize="energy")
    made.refinement = Refinement(made.surrogate, All([Expression("x1 < 0.2")]), Newton(), minimize="energy")
    found = made.run(0.5, 60, seeded()).candidates
    assert (found.designs[:, 0] < 0.2 + 1e-6).all() and found.designs[0].tolist() == pytest.approx([0.2, 0.3], abs=0.02)
    assert (found.mean[1:, 1] >= found.mean[:-1, 1]).all()


def test_minimize_before_the_accurate_surrogate():
    accurate = Linear(SPACE, [prop("band_gap_fine", floor=0.0)], [[1.25, 1.25]])
    run = with_energy(minimize="energy", accurate_surrogate=accurate).run(0.5, 40, seeded())
    assert list(run.stages)[-2:] == ["minimized", "refined"]
    assert [declared.name for declared in run.candidates.properties] == ["band_gap_fine", "energy"]
    assert run.candidates.designs[0].tolist() == pytest.approx([0.2, 0.2], abs=1e-3)
    assert run.summary()["objective"].keys() == {"sampled", "selected", "localized", "minimized"}


@pytest.mark.parametrize(("minimize", "words"), [("wrong", "got 'wrong'"), ("energy <", "fault"), ("energy < 1", "a number")])
def test_bad_objectives(minimize, words):
    with pytest.raises(ConfigError, match=words):
        with_energy(minimize=minimize).run(0.5, 20, seeded())


def test_minimize_needs_a_localization():
    with pytest.raises(ConfigError, match="a localization"):
        Refinement(linear_gap(), minimize="band_gap")


def test_an_accurate_surrogate_of_too_many_properties():
    other = Linear(SPACE, [prop("a"), prop("b")], [[1.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ConfigError, match=r"accurate surrogate of \['band_gap'\]"):
        Refinement(linear_gap(), accurate_surrogate=other)


def test_further_surrogates_lie_beside_the_first(tmp_path):
    model, first = parts()
    energy = tiny_network(CONF / "surrogate" / "mlp.yaml", SPACE, [ENERGY, WIDTH], seed=1)
    accurate = tiny_network(CONF / "surrogate" / "mlp.yaml", SPACE, [prop("band_gap_fine")], seed=2)
    batch = rows(SPACE, outputs=2)
    energy.fit_scales(batch)
    accurate.fit_scales(rows(SPACE))
    made = InverseDesign(model, CombinedSurrogate([first, energy]), accurate_surrogate=accurate)
    made.save(tmp_path)
    stems = {path.stem for path in tmp_path.iterdir()}
    assert stems == {"model", "surrogate", "surrogate_energy", "accurate_band_gap_fine"}
    again = InverseDesign.load(tmp_path, refine_with="band_gap_fine", further=["width"])
    assert [declared.name for declared in again.surrogate.properties] == ["band_gap", "energy", "width"]
    assert [declared.name for declared in again.accurate_surrogate.properties] == ["band_gap_fine", "energy", "width"]
    for found, expected in zip(again.surrogate.predict(batch.x), made.surrogate.predict(batch.x), strict=True):
        torch.testing.assert_close(found, expected)
    assert [declared.name for declared in InverseDesign.load(tmp_path).surrogate.properties] == ["band_gap"]


def test_a_surrogate_must_know_what_the_model_knows():
    with pytest.raises(ConfigError, match="of its properties"):
        InverseDesign(parts()[0], Linear(SPACE, [ENERGY], [[1.0, 1.0]]))


@pytest.mark.slow
def test_one_model_answers_any_subset_of_its_properties():
    """A tiny model of the arm of kinematics: two properties, asked for alone and together."""
    problem, space = Kinematics(), line(4)
    x = problem.sample_prior(2000, seeded())
    batch = Batch(x, problem.forward(x))
    properties = [prop("y1"), prop("y2")]
    model = tiny_network(CONF / "model" / "mdn.yaml", space, properties)
    model.fit_scales(batch)
    made = InverseDesign(model, Arm(space, properties), All(), Newton())
    for target in ({"y1": 1.5}, {"y2": [0.2, None]}, {"y1": 1.2, "y2": [-0.1, 0.1]}, [1.0, 0.3]):
        found = made.run(target, 60, seeded()).candidates
        assert found.error.max() < 1e-3 and len(found) > 40


class Arm(Linear):
    """The exact end point of the arm."""

    def __init__(self, space, properties) -> None:
        super().__init__(space, properties, [[1.0] * 4] * 2)

    def member_predictions(self, features):
        return Kinematics().forward(self.features.scale.inverse(features)).unsqueeze(0)


def test_packaged_strain_energy():
    """It is read where it is asked for, and knows that the unstrained cell costs nothing."""
    assert [known.name for known in InverseDesign.load().surrogate.properties] == ["band_gap"]
    design = InverseDesign.load(further=["strain_energy"])
    mean, _ = design.surrogate.predict_many(design.surrogate.space.reference.unsqueeze(0))
    assert abs(mean[0, 1].item()) < 0.01
    run = design.run({"band_gap": 1.0, "strain_energy": [None, 2.0]}, 50, seeded())
    assert (run.candidates.mean[:, 1] <= 2.0 + 1e-3).all() and (run.candidates.error[:, 0] < 0.01).all()
