import pytest

from matdesinne.reporting.tables import markdown_table


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (0.0, "0"),
        (-0.0, "0"),
        (0.012345, "0.0123"),
        (1234.5, "1.23e+03"),
        (float("nan"), "nan"),
        (123456, "123456"),
        (True, "True"),
        ("mean |error|", r"mean \|error\|"),
        ("two\nlines", "two lines"),
    ],
)
def test_cells(value, cell):
    assert markdown_table(["x"], [[value]]) == f"| x |\n|---|\n| {cell} |\n"


def test_columns_and_rows():
    assert markdown_table(["a", "|b| [eV]"], [[1, 2.0], ["x", None]]) == (
        "| a | \\|b\\| [eV] |\n|---|---|\n| 1 | 2 |\n| x |  |\n"
    )


def test_no_rows():
    assert markdown_table(["a", "b"], []) == "| a | b |\n|---|---|\n"


def test_a_row_has_a_cell_for_every_column():
    with pytest.raises(AssertionError):
        markdown_table(["a", "b"], [[1]])
