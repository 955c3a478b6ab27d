import hashlib

import pandas
import pooch
import pytest
import torch
from omegaconf import OmegaConf

from matdesinne.data.simulations import AnalyticSource
from matdesinne.data.sources import (
    FileSource,
    LabelSource,
    PackagedSource,
    PublishedSource,
    TableSource,
)
from matdesinne.data.table import check_table
from matdesinne.errors import ConfigError, DatasetError
from matdesinne.oracles.analytic import Ballistics, Kinematics
from matdesinne.targets import Property

from ..toys import CONF, box, line, load_part, prop, rows

GAP = [Property("band_gap", "eV", floor=0.0)]
DECLARED = OmegaConf.load(CONF / "data" / "mos2_vasp.yaml").source


@pytest.fixture(scope="module")
def space():
    return load_part("space")


@pytest.fixture(scope="module")
def wide_space():
    """The box of the published set."""
    return load_part("space", "mos2_vasp")


@pytest.fixture(scope="module")
def packaged(space):
    return PackagedSource("mos2_gpaw").load(space, GAP)


def published(**changes) -> PublishedSource:
    settings = {key: DECLARED[key] for key in ("designs", "labels", "url")}
    return PublishedSource(**{**settings, "sha256": dict(DECLARED.sha256), "variable": "UNSET", **changes})


@pytest.mark.slow
def test_packaged_rows(packaged):
    assert packaged.x.shape == (1404, 7)
    assert packaged.y.shape == (1404, 1)
    assert packaged.bands[0].energies.shape == (1404, 2, 41)
    assert packaged.bands[0].kpoints.shape == (41, 2)


def test_packaged_gap_is_the_difference_of_the_edges(packaged):
    valence, conduction = packaged.bands[0].energies.unbind(1)
    gap = conduction.amin(1) - valence.amax(1)
    torch.testing.assert_close(packaged.y[:, 0], gap, rtol=0, atol=1e-4)


def test_packaged_rows_keep_their_declaration(packaged, space):
    check_table(packaged, space, GAP, "mos2_gpaw")


def test_packaged_labels_of_active_learning(packaged, space):
    table = check_table(LabelSource("mos2_gpaw_active").load(space, GAP), space, GAP, "mos2_gpaw_active")
    assert len(table) == 120
    assert len(packaged.joined(table).without_duplicates()) == 1404 + 120
    valence, conduction = table.bands[0].energies.unbind(1)
    torch.testing.assert_close(table.y[:, 0], conduction.amin(1) - valence.amax(1), rtol=0, atol=1e-4)


def test_packaged_ids_are_distinct(packaged):
    assert len(packaged.ids.unique()) == len(packaged)


def test_packaged_gaps_have_both_signs(packaged):
    assert (packaged.y > 0.5).any() and (packaged.y < -0.2).any()


def test_packaged_column(space):
    with pytest.raises(DatasetError, match="bandgap"):
        PackagedSource("mos2_gpaw").load(space, [Property("bandgap", "eV")])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "grids"), [("energy", []), ("direct_gap", ["band_gap", "band_gap_fine"])])
def test_other_properties_come_with_the_bands_that_they_follow_from(space, name, grids):
    table = PackagedSource("mos2_gpaw").load(space, [Property(name, "eV")])
    assert table.y.isfinite().all() and [labels.name for labels in table.bands] == grids


@pytest.mark.slow
def test_levels_of_several_properties(space):
    names = ["thickness", "direct_gap_hse", "band_gap_fine_soc", "band_gap_hse"]
    table = PackagedSource("tmd_strain_mos2").load(load_part("space", "tmd_strain/mos2"), [Property(n, "eV") for n in names])
    names = ["band_gap_hse", "band_gap_fine_soc", "band_gap_soc", "band_gap", "band_gap_fine"]
    assert [labels.name for labels in table.bands] == names


def test_packaged_name():
    with pytest.raises(DatasetError, match="mos2_gpaw"):
        PackagedSource("nothing").load(box(), GAP)


@pytest.mark.slow
def test_published_rows(published_folder, wide_space):
    table = published().load(wide_space, GAP, published_folder)
    assert len(table) == 10_798
    assert len(table) - len(table.without_duplicates()) == 368
    check_table(table, wide_space, GAP, "mos2_vasp")


def test_published_box_is_hardly_wider(space, wide_space):
    width = space.upper - space.lower
    assert ((wide_space.upper - wide_space.lower - width) / width).abs().max() < 0.005
    assert wide_space.symmetries == space.symmetries


def test_published_labels_are_censored(published_folder, wide_space):
    y = published().load(wide_space, GAP, published_folder).y
    assert float(y.min()) == 0.0
    assert float((y == 0).float().mean()) == pytest.approx(0.641, abs=1e-3)


def test_published_folder_by_variable(published_folder, wide_space, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", str(published_folder))
    assert len(published(variable="SOME_FOLDER").load(wide_space, GAP)) == 10_798


@pytest.fixture
def folder(tmp_path):
    """Two small files and their checksums."""
    (tmp_path / "x.csv").write_text("0.1,0.2\n0.3,0.4\n")
    (tmp_path / "y.csv").write_text("1\n2\n")
    return tmp_path


def small(folder) -> PublishedSource:
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("x.csv", "y.csv")}
    return PublishedSource("x.csv", "y.csv", "https://example.org/data", sums, "UNSET")


def test_published_small(folder):
    table = small(folder).load(box(), [prop()], folder)
    assert table.y[:, 0].tolist() == [1.0, 2.0]


def test_published_root_wins_over_the_variable(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("UNSET", str(tmp_path_factory.mktemp("other")))
    assert len(small(folder).load(box(), [prop()], folder)) == 2
    with pytest.raises(DatasetError, match="other"):
        small(folder).load(box(), [prop()])


def test_file_in_a_root(tmp_path):
    (tmp_path / "table.csv").write_text("x1,x2,y\n0,0,1\n0,1,2\n")
    assert len(FileSource("table.csv").load(box(), [prop()], tmp_path)) == 2


def test_published_checksum(folder):
    source = small(folder)
    (folder / "x.csv").write_text("0.1,0.2\n0.3,0.5\n")
    with pytest.raises(DatasetError, match=r"x\.csv with sha256"):
        source.load(box(), [prop()], folder)


def test_published_missing_file(folder):
    source = small(folder)
    (folder / "y.csv").unlink()
    with pytest.raises(DatasetError, match=r"y\.csv in the folder.*root"):
        source.load(box(), [prop()], folder)


def test_published_lengths(folder):
    (folder / "y.csv").write_text("1\n")
    with pytest.raises(DatasetError, match="2 and 1"):
        small(folder).load(box(), [prop()], folder)


def test_published_width(folder):
    (folder / "x.csv").write_text("0.1,0.2,0.3\n0.3,0.4,0.3\n")
    with pytest.raises(DatasetError, match=r"x\.csv"):
        small(folder).load(box(), [prop()], folder)


def test_download_takes_both_files_by_checksum(folder, monkeypatch):
    asked = []

    def retrieve(url, known_hash, **settings):
        asked.append((url, known_hash))
        return str(folder / url.rsplit("/", 1)[1])

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    source = small(folder)
    assert len(source.load(box(), [prop()])) == 2
    assert asked == [(f"https://example.org/data/{name}", f"sha256:{source.sha256[name]}") for name in ("x.csv", "y.csv")]


def test_download_without_network(folder, monkeypatch):
    def retrieve(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DatasetError, match=r"x\.csv from https://example.org/data/.*no route.*root.*UNSET"):
        small(folder).load(box(), [prop()])


def test_file_with_two_properties(tmp_path, close):
    batch = rows(box(), 20, outputs=2)
    values = torch.cat([batch.y.flip(1), batch.x], dim=1).double().tolist()
    lines = ["w,y,x1,x2", *(",".join(map(repr, row)) for row in values)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    table = FileSource(str(tmp_path / "table.csv")).load(box(), [prop("y"), prop("w")])
    close(table.x, batch.x)
    close(table.y, batch.y)
    assert table.ids.tolist() == list(range(20))


def test_file_ignores_columns(tmp_path):
    (tmp_path / "table.csv").write_text("x1,x2,y,name\n0,0,1,a\n0,1,2,b\n")
    assert len(FileSource(str(tmp_path / "table.csv"), ["name"]).load(box(), [prop()])) == 2


def test_file_needs_a_path():
    with pytest.raises(ConfigError, match=r"data\.source\.path"):
        FileSource("")


@pytest.mark.parametrize(("problem", "outputs"), [(Kinematics(), 2), (Ballistics(), 1)], ids=["kinematics", "ballistics"])
def test_analytic(problem, outputs):
    made = [AnalyticSource(problem, 50, seed).load(line(4), []) for seed in (0, 0, 1)]
    assert made[0].y.shape == (50, outputs)
    assert torch.equal(made[0].x, made[1].x)
    assert not torch.equal(made[0].x, made[2].x)
    assert torch.equal(made[0].y, problem.forward(made[0].x))


@pytest.mark.parametrize("problem", [Kinematics(), Ballistics()], ids=["kinematics", "ballistics"])
def test_analytic_leaves_the_global_seed(problem, untouched_seed):
    AnalyticSource(problem, 50, 0).load(line(4), [])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PackagedSource("mos2_gpaw"), "mos2_gpaw"),
        (published(), "data_x.csv and data_y.csv"),
        (FileSource("my.csv"), "my.csv"),
        (AnalyticSource(Kinematics(), 1, 0), "Kinematics"),
        (TableSource((torch.zeros(1, 2), torch.zeros(1, 1))), "the table in memory"),
    ],
)
def test_name(source, words):
    assert words in source.name


@pytest.mark.parametrize("chunk", [1 << 22, 1500])
def test_rare_properties_are_kept_rather_than_common_ones(chunk, close, monkeypatch):
    monkeypatch.setattr("matdesinne.data.simulations._CHUNK_ROWS", chunk)
    plain, flat = (AnalyticSource(Kinematics(), 4000, 0, drawn).load(line(4), []) for drawn in (None, 40_000))
    assert len(flat) == len(plain) == 4000
    assert flat.y[:, 0].std() > 1.2 * plain.y[:, 0].std()
    close(flat.y, Kinematics().forward(flat.x))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1 << 22, 30_000])
def test_designs_given_the_property_stay_as_they_are(chunk, monkeypatch):
    """The weights depend on y alone, so x at a given y is distributed as before."""
    monkeypatch.setattr("matdesinne.data.simulations._CHUNK_ROWS", chunk)
    plain, flat = (AnalyticSource(Kinematics(), 100_000, 0, drawn).load(line(4), []) for drawn in (None, 400_000))
    near = [table.x[(table.y - torch.tensor([1.7, 0.2])).norm(dim=1) < 0.1] for table in (plain, flat)]
    assert (near[0].mean(0) - near[1].mean(0)).abs().max() < 0.05
    assert (near[0].std(0) / near[1].std(0) - 1).abs().max() < 0.1


def test_fewer_drawn_than_kept():
    with pytest.raises(ConfigError, match="drawn"):
        AnalyticSource(Kinematics(), 10, 0, 5)


FRAME = pandas.DataFrame({"y": [1, 2], "x2": [0.1, 0.2], "x1": [0.3, 0.4], "note": ["a", "b"]})


def test_frame_is_read_by_the_names_of_its_columns(close):
    table = TableSource(FRAME).load(box(), [prop()])
    close(table.x, torch.tensor([[0.3, 0.1], [0.4, 0.2]]))
    assert table.y.tolist() == [[1.0], [2.0]] and table.ids.tolist() == [0, 1]
    assert (table.x.dtype, table.y.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_tensors_are_taken_in_single_precision(dtype):
    table = TableSource((torch.ones(3, 2, dtype=dtype), torch.ones(3, 1, dtype=dtype))).load(box(), [prop()])
    assert (table.x.dtype, table.y.dtype) == (torch.float32, torch.float32)
    assert table.ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop(columns="x2"), r"the columns \['x1', 'x2', 'y'\] in the table in memory.*lacks \['x2'\]"),
        (FRAME.assign(y=[1.0, float("nan")]), r"finite number in column 'y' of the table in memory, got nan in row 1"),
        (FRAME.assign(x1=["0.1", "one"]), r"column 'x1' of the table in memory, got 'one' in row 1"),
        (FRAME.assign(x1=[None, 0.1]), r"column 'x1' of the table in memory.* in row 0"),
    ],
    ids=["missing", "nan", "text", "none"],
)
def test_frame_rejects(frame, message):
    with pytest.raises(DatasetError, match=message):
        TableSource(frame).load(box(), [prop()])


@pytest.mark.parametrize(
    ("x", "y"),
    [((3, 3), (3, 1)), ((3, 2), (3, 2)), ((3, 2), (2, 1)), ((3,), (3, 1)), ((3, 2), (3,)), ((), ())],
    ids=["parameters", "properties", "rows", "1-d x", "1-d y", "numbers"],
)
def test_tensors_reject(x, y):
    with pytest.raises(DatasetError, match=r"designs of shape \[n, 2\] and properties of shape \[n, 1\].*reshape"):
        TableSource((torch.zeros(x), torch.zeros(y))).load(box(), [prop()])


@pytest.mark.parametrize("table", [{"x1": [0.1]}, "table.csv", [[0.1, 0.2, 0.3]], (torch.zeros(3, 2),)], ids=repr)
def test_what_is_no_table(table):
    with pytest.raises(DatasetError, match="DataFrame"):
        TableSource(table).load(box(), [prop()])


def test_labels_below_an_index_with_their_relaxed_atoms(tmp_path):
    """In the order of the file, which is that of the ends of the calculations; failures are left out."""
    columns = {"x1": [0.1, 0.2, 0.3, 0.4], "x2": [0.0] * 4, prop().name: [1.0, 2.0, None, 4.0], "index": [3, 0, 1, 2]}
    columns |= {"status": ["done", "done", "failed", "done"], "relaxed_positions": [[3.0], [0.0], None, [2.0]]}
    pandas.DataFrame(columns).to_parquet(tmp_path / "labels.parquet")
    every, first = (LabelSource(tmp_path / "labels.parquet", below) for below in (None, 3))
    assert every.load(box(), [prop()]).y.tolist() == [[1.0], [2.0], [4.0]]
    table = first.load(box(), [prop()])
    assert table.y.tolist() == [[2.0], [4.0]]
    assert first.relaxed_positions() == {table.ids[0].item(): [0.0], table.ids[1].item(): [2.0]}
