import math
import warnings

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from matdesinne.bands import BandLabels
from matdesinne.data.table import DesignTable, check_table, read_numbers
from matdesinne.errors import ConfigError, DatasetError

from ..toys import box, cases, line, prop, rows


def table(x, y=None, bands=()) -> DesignTable:
    x = torch.tensor(x)
    y = x.sum(1, keepdim=True) if y is None else torch.tensor(y)
    return DesignTable(x, y, 10 + torch.arange(len(x)), bands)


@pytest.fixture
def hundred() -> DesignTable:
    batch = rows(box(), 100)
    return DesignTable(batch.x, batch.y, torch.arange(100))


def test_duplicates_keep_the_first():
    unique = table([[0.0, 1.0], [0.5, 0.5], [0.0, 1.0], [0.2, 0.1], [0.5, 0.5]], [[1.0], [2.0], [3.0], [4.0], [5.0]])
    unique = unique.without_duplicates()
    assert unique.ids.tolist() == [10, 11, 13]
    assert unique.y[:, 0].tolist() == [1.0, 2.0, 4.0]


def test_duplicates_compare_designs_only():
    assert len(table([[0.0, 1.0], [1.0, 0.0]], [[1.0], [1.0]]).without_duplicates()) == 2


def test_take_keeps_bands():
    bands = BandLabels(torch.arange(12.0).reshape(2, 2, 3), torch.zeros(3, 2))
    taken = table([[0.0], [1.0]], bands=(bands,)).take(torch.tensor([1]))
    assert torch.equal(taken.bands[0].energies, bands.energies[1:])


def test_joined_rows_lack_energies_on_a_grid_of_one_table_only():
    coarse, fine = (BandLabels(torch.ones(1, 2, k), torch.rand(k, 2), name) for k, name in ((3, "gap"), (5, "gap_fine")))
    both = table([[0.0]], bands=(coarse, fine)).joined(table([[1.0]], bands=(coarse,)))
    assert both.bands[0].energies.isfinite().all()
    assert both.bands[1].energies.isfinite().all(dim=(1, 2)).tolist() == [True, False]


def test_joined_rows_have_one_grid():
    tables = [table([[0.0]], bands=(BandLabels(torch.ones(1, 2, 2), torch.full((2, 2), k)),)) for k in (0.0, 0.25)]
    with pytest.raises(DatasetError, match="k-points"):
        tables[0].joined(tables[1])


def test_split_is_disjoint_and_complete(hundred):
    ids = hundred.split(0.2, 0.1, 0).row_ids()
    assert sorted(ids["train"] + ids["validation"] + ids["test"]) == list(range(100))
    assert [len(ids[part]) for part in ("train", "validation", "test")] == [70, 20, 10]


def test_split_keeps_rows_together(hundred):
    for part in (hundred.split(0.2, 0.1, 0).train, hundred.split(0.2, 0.1, 0).test):
        assert torch.equal(part.x, hundred.x[part.ids])
        assert torch.equal(part.y, hundred.y[part.ids])


def test_split_is_reproducible(hundred):
    parts = [hundred.split(0.2, 0.1, seed).row_ids() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_split_ignores_the_global_seed(hundred):
    parts = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts.append(hundred.split(0.2, 0.1, 0).row_ids())
    assert parts[0] == parts[1]


def test_split_leaves_the_global_seed(hundred, untouched_seed):
    hundred.split(0.2, 0.1, 0)


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5), (0.1, -0.1), (1.0, 0.0)])
def test_split_rejects(hundred, fractions):
    with pytest.raises(ConfigError, match="fractions"):
        hundred.split(*fractions, 0)


@pytest.mark.parametrize("count", [1, 2])
def test_split_of_too_few_rows(hundred, count):
    with pytest.raises(DatasetError, match=f"got {count}"):
        hundred.take(torch.arange(count)).split(0.1, 0.1, 0)


def test_check_passes_a_good_table(hundred):
    assert check_table(hundred, box(), [prop()], "memory") is hundred


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[0.0, 0.0], [math.nan, 0.0]], None, r"x1 in memory.*row 11"),
        ([[0.0, 0.0], [0.0, math.inf]], None, r"x2 in memory.*row 11"),
        ([[0.0, 0.0], [0.0, 1.1], [0.0, 1.2]], None, r"x2 within \[-1, 1\] m in memory.*1.1 in row 11"),
        ([[-2.0, 0.0], [0.0, 0.0]], None, r"x1 within.*row 10"),
        ([[0.0, 0.0], [0.1, 0.0]], [[0.0], [math.nan]], r"y in memory.*row 11"),
        ([[0.0, 0.0], [0.1, 0.0]], [[3.0], [3.0]], r"varying property y in memory.*3 eV"),
    ],
    ids=["nan", "infinite", "above", "below", "property", "constant"],
)
def test_check_names_the_fault(x, y, words):
    with pytest.raises(DatasetError, match=words):
        check_table(table(x, y), box(), [prop()], "memory")


def test_check_rejects_no_rows():
    with pytest.raises(DatasetError, match=r"memory.*empty"):
        check_table(DesignTable(torch.empty(0, 2), torch.empty(0, 1), torch.arange(0)), box(), [prop()], "memory")


def test_check_forgives_rounding():
    good = table([[1.0 + 1e-6, 0.0], [0.0, 0.0]])
    assert check_table(good, box(), [prop()], "memory") is good


def test_check_without_bounds():
    good = table([[1e9, -1e9], [0.0, 1.0]])
    assert check_table(good, line(), [prop()], "memory") is good


def write(folder, text: str):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = [[1.0, 2.0], [-0.5, 3e-2]]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n-0.5,3e-2\n",
        "b,a\n2,1\n3e-2,-0.5\n",
        "a, b\n1, 2\n-0.5, 3e-2",
        "\ufeffa,b\n1,2\n-0.5,3e-2\n",
        '"a","b"\n"1",2\n-.5,.03\n',
    ],
    ids=["plain", "order", "blanks", "mark", "quoted"],
)
def test_read_csv(tmp_path, text):
    assert read_numbers(write(tmp_path, text), ["a", "b"]).tolist() == GOOD


def test_read_is_double_precision(tmp_path):
    found = read_numbers(write(tmp_path, "a\n0.1234567890123456\n"), ["a"])
    assert found.dtype == torch.float64
    assert found.item() == 0.1234567890123456


def test_read_parquet(tmp_path):
    pandas.DataFrame(GOOD, columns=["a", "b"]).to_parquet(tmp_path / "table.parquet")
    assert read_numbers(tmp_path / "table.parquet", ["a", "b"]).tolist() == GOOD


def test_read_without_header(tmp_path):
    assert read_numbers(write(tmp_path, "1,2\n-0.5,3e-2\n"), ["a", "b"], header=False).tolist() == GOOD


def test_read_ignores_what_it_is_told(tmp_path):
    assert read_numbers(write(tmp_path, "a,name,b\n1,x,2\n-.5,y,.03\n"), ["a", "b"], ["name"]).tolist() == GOOD


def test_read_header_only(tmp_path):
    assert read_numbers(write(tmp_path, "a,b\n"), ["a", "b"]).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n1\n", r"table\.csv.*lacks \['b'\]"),
        ("a,b,c\n1,2,3\n", r"table\.csv.*also \['c'\]"),
        ("a,b,b\n1,2,3\n", r"table\.csv.*also"),
        ("a,b\n1,2\n1,\n", r"'b' of .*table\.csv.*'' in row 1"),
        ("a,b\n1,2\n1,abc\n1,def\n", r"'b' of .*table\.csv.*'abc' in row 1"),
        ("a,b\n1,2\nnan,3\n", r"'a' of .*table\.csv.*'nan' in row 1"),
        ("a,b\n1,inf\n", r"'b' of .*table\.csv.*'inf' in row 0"),
        ("a,b\n1,1e999\n", r"'b' of .*table\.csv.*'1e999' in row 0"),
        ("a,b\n1,2\n3\n", r"'b' of .*table\.csv.* row 1"),
        ("a,b\n1,2\n\n1,x\n", r"'b' of .*table\.csv.*'x' in row 1"),
        ("a;b\n1;2\n", r"table\.csv.*lacks"),
        ("", r"table\.csv"),
    ],
    ids=["column", "extra", "repeated", "empty", "text", "nan", "inf", "huge", "short", "blank", "semicolon", "nothing"],
)
def test_read_names_the_fault(tmp_path, text, words):
    with pytest.raises(DatasetError, match=words):
        read_numbers(write(tmp_path, text), ["a", "b"])


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n4,5,6\n", "a,b\n1,2\n4,5,6\n", "a,b\n0,5,0,7\n"], ids=["all", "one", "comma"])
def test_read_loses_no_field(tmp_path, text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user runs it
        with pytest.raises(DatasetError, match=r"table\.csv"):
            read_numbers(write(tmp_path, text), ["a", "b"])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"PAR1"], ids=["bytes", "parquet"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_read_rejects_damaged_files(tmp_path, content, ending):
    path = tmp_path / f"table.{ending}"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"table\.{ending}"):
        read_numbers(path, ["a", "b"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_read_rejects_missing_files(tmp_path, ending):
    with pytest.raises(DatasetError, match="no such file"):
        read_numbers(tmp_path / f"table.{ending}", ["a"])


def test_read_rejects_a_folder(tmp_path):
    with pytest.raises(DatasetError, match="Expected"):
        read_numbers(tmp_path, ["a"])


cells = st.floats().map(repr) | st.integers(-9, 9).map(str) | st.sampled_from(["", "x", " 1", "1_0", "0x1", "NA", "1e400", "-"])
lines = st.lists(cells, min_size=1, max_size=3).map(",".join)


@pytest.mark.slow
@cases(300)
@given(header=st.sampled_from(["a,b", "b,a", "a", "a,b,c", "", "1,2"]), body=st.lists(lines, max_size=4))
def test_read_gives_finite_numbers_or_our_error(tmp_path_factory, header, body):
    path = write(tmp_path_factory.getbasetemp(), "\n".join([header, *body]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_numbers(path, ["a", "b"])
        except DatasetError as error:
            assert "table.csv" in str(error)
            return
    assert found.isfinite().all()
    filled = [row for row in body if row.strip()]
    assert found.shape == (len(filled), 2)
    order = [0, 1] if header == "a,b" else [1, 0]
    wanted = [[float(row.split(",")[i]) for i in order] for row in filled]
    assert found.tolist() == wanted
    assert all(row.count(",") == 1 for row in filled)


@pytest.mark.slow
@cases(200)
@given(
    values=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1, max_size=5)
)
def test_read_gives_back_what_was_written(tmp_path_factory, values):
    text = "\n".join(["a,b", *(f"{first!r},{second!r}" for first, second in values)])
    assert read_numbers(write(tmp_path_factory.getbasetemp(), text), ["a", "b"]).tolist() == values


KPOINTS = torch.tensor([[0.0, 0.0], [1 / 3, 0.0], [0.0, 1 / 3], [1 / 3, 1 / 3], [1 / 3, -1 / 3]])


def test_permutation_of_the_identity():
    bands = BandLabels(torch.zeros(1, 2, 5), KPOINTS)
    assert bands.permutation(torch.eye(2)).tolist() == [0, 1, 2, 3, 4]


def test_permutation_swaps():
    bands = BandLabels(torch.zeros(1, 2, 5), KPOINTS)
    # (1/3, -1/3) goes to (-1/3, 1/3), which time reversal takes back
    assert bands.permutation(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist() == [0, 2, 1, 3, 4]


def test_permutation_needs_the_image():
    with pytest.raises(DatasetError, match="k-points"):
        BandLabels(torch.zeros(1, 2, 2), KPOINTS[:2]).permutation(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
