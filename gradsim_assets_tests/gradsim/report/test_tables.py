"""Tables as the page shows them."""

import polars as pl
import pytest

from gradsim.report.downloads import Download, Downloads, csv_of
from gradsim.report.sections import NAMES, SCHEMAS
from gradsim.report.tables import COLUMNS, in_points, p_value, table_of, three_digits

DOWNLOAD = Download("file", "label", available=True)


def test_what_is_shown_is_what_the_analyses_make() -> None:
    shown = {
        (name, column)
        for name, columns in COLUMNS.items()
        for each in columns
        for column in (each.column, *(each.interval or ()))
        if name not in {"layers", "exclusions", "truncations", "faults"}
    }
    assert shown <= {(name, column) for name, schema in SCHEMAS.items() for column in schema}
    of_layers = {column for each in COLUMNS["layers"] for column in (each.column, *(each.interval or ()))}
    tables = ("accuracy_per_layer", "similarity_to_full_gradient", "parameters_per_layer")
    assert of_layers - {"similarity_low", "similarity_high"} <= {
        column for table in tables for column in SCHEMAS[table]
    }


def test_every_table_of_a_setting_has_a_name_for_readers() -> None:
    assert set(NAMES) == set(SCHEMAS) - {"parameters_per_layer", "selection_transfer"}


def test_cells() -> None:
    frame = pl.DataFrame(
        {
            "method": ["full_gradient", "sjlt-11778048"],
            "other": ["bm25", "bm25"],
            "difference": [0.1566, -0.0021],
            "low": [0.135, None],
            "high": [0.18, None],
            "only_method": [158, 0],
            "only_other": [3, 5],
            "p_holm": [1.9e-42, 0.0625],
        },
        schema_overrides={"low": pl.Float64, "high": pl.Float64},
    )
    table = table_of("method_differences", "Differences", frame, SCHEMAS["method_differences"], DOWNLOAD)
    assert [heading.label for heading in table.headings] == [
        "method", "versus", "difference (points)", "95 % interval", "only the first", "only the other", "p (Holm)",
    ]  # fmt: skip
    assert [heading.numeric for heading in table.headings] == [False, False, True, True, True, True, True]
    assert table.headings[2].description == SCHEMAS["method_differences"]["difference"][1]
    first, second = ([(cell.text, cell.value) for cell in row] for row in table.rows)
    assert first == [
        ("full gradient", "full_gradient"), ("BM25", "bm25"), ("+15.7", "0.1566"), ("+13.5 to +18.0", "0.135"),
        ("158", "158"), ("3", "3"), ("1.9·10⁻⁴²", "1.9e-42"),
    ]  # fmt: skip
    assert second[0] == ("sjlt, 11.8\u00a0M dimensions", "sjlt-11778048")
    assert second[2:4] == [("−0.2", "-0.0021"), ("–", "")]


def test_a_column_that_is_absent_is_not_shown() -> None:
    frame = pl.DataFrame(
        {"layer": ["model.layers.0.mlp.up_proj.weight"], "accuracy": [0.5], "low": [0.4], "high": [0.6]}
    )
    table = table_of("layers", "Layers", frame, {}, DOWNLOAD)
    assert [heading.label for heading in table.headings] == ["layer", "accuracy (%)", "95 % interval"]
    assert [cell.text for cell in table.rows[0]] == ["0.mlp.up_proj", "50.0", "40.0 to 60.0"]


def test_every_column_of_another_packages_analysis_is_shown() -> None:
    frame = pl.DataFrame({"rank": [0, 1], "similarity": [0.123456, None], "verdict": ["yes", "no"]})
    table = table_of("similarity_by_rank", "Similarity by rank", frame, {}, DOWNLOAD)
    assert [heading.label for heading in table.headings] == ["rank", "similarity", "verdict"]
    assert [[cell.text for cell in row] for row in table.rows] == [["0", "0.1235", "yes"], ["1", "–", "no"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (p_value(0.0321), "0.032"),
        (p_value(3e-7), "3·10⁻⁷"),
        (p_value(1.0), "1"),
        (in_points(-0.0121), "−1.2"),
        (three_digits(0.0123456), "1.23"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


def test_numbers_that_are_negative_infinite_or_none() -> None:
    audit = pl.DataFrame(
        {
            "mean_error": [-2.1e-7, float("nan"), 0.0],
            "sd_ratio": [float("inf"), None, 1.0],
            "agreement": [-0.5, 0.5, 1.0],
            "agreement_low": [-0.75, 0.25, 1.0],
            "agreement_high": [-0.25, 0.75, 1.0],
        }
    )
    table = table_of("projection_audit", "Projections", audit, SCHEMAS["projection_audit"], DOWNLOAD)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["−2.1·10⁻⁷", "∞", "−0.500000", "−0.750000 to −0.250000"],
        ["–", "–", "0.500000", "0.250000 to 0.750000"],
        ["0", "1.000", "1.000000", "1.000000 to 1.000000"],
    ]
    # As the page's script reads numbers.
    assert [row[1].value for row in table.rows] == ["Infinity", "", "1.0"]


def test_csv_has_every_digit_and_lists_as_texts() -> None:
    frame = pl.DataFrame({"value": [0.1 + 0.2], "selected": [["a.weight", "b.weight"]]})
    assert csv_of(frame).decode() == "value,selected\n0.30000000000000004,a.weight b.weight\n"


def test_a_table_is_carried_once() -> None:
    downloads = Downloads()
    frame = pl.DataFrame({"value": [1.0]})
    assert downloads.add("a_table", "one", frame) == Download("a_table", "one", available=True)
    assert downloads.add("a_table", "two", frame).label == "two"
    assert [file for file, _ in downloads] == ["a_table"]
