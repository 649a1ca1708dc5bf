"""`gradsim plan`: what it says before anything ran, of what is there, and after it has measured."""

import json
import math
import re

import dagster as dg
import pytest

from gradsim.errors import ModelError
from gradsim.tables.lineage import GRADIENT_TABLES
from gradsim_assets.commands.plan import print_plan
from gradsim_assets.commands.session import Session
from gradsim_assets.terminal import console

PARTITIONS = 3


@pytest.fixture
def said(capsys, monkeypatch):
    """What is printed of a place's study: label -> cells of the settings, and all lines."""
    monkeypatch.setattr(console, "width", 150)

    def plan(place, name="tiny", **options):
        session = Session(place.study(name), place.environment)
        capsys.readouterr()
        print_plan(session, **options)
        lines = capsys.readouterr().out.splitlines()
        cells = [re.split(r"  +", line.strip()) for line in lines if line.strip()]
        # The second time that a label comes is in the section on splitting.
        table: dict[str, list[str]] = {}
        for label, *values in cells:
            table.setdefault(label, values) if label not in table else table.update({f"split: {label}": values})
        return table, "\n".join(lines)

    return plan


@pytest.fixture
def without_gradients(computed):
    """Three settings without gradients, but with all inputs of the gradients."""
    for table in GRADIENT_TABLES:
        computed.delete(f"tiny/*/{table}/*", f"tiny/*/results/{table}.parquet")
    return computed


def numbers(cells):
    return [int(cell.replace(",", "")) for cell in cells]


def test_before_anything_ran(workplace, said):
    table, text = said(workplace)
    assert table["partitions to compute"] == ["3 of 3"]
    assert (table["queries"], table["originals"], table["pairs"]) == (["20"], ["20"], ["60"])
    assert table["unique samples"] == table["samples run (passes)"] == ["40"]
    assert numbers(table["split: samples run (passes)"]) > [40]
    assert table["counts"] == ["estimated"]
    assert table["time"] == ["--measure"]
    assert sum(map(int, table["built, kept as factors"][0].split(", "))) == 8
    for note in (
        "estimated lengths: originals have one token per 4 characters, queries are as long as their originals",
        "estimated candidates: the true source and random others",
        "not counted: the model is trained first",
        "time: unknown, run with --measure (gradsim plan tiny --measure)",
    ):
        assert f"- {note}" in text
    assert not workplace.data.exists()
    assert not workplace.home.exists()


def test_no_line_is_longer_than_a_terminal_of_100_columns(workplace, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 100)
    print_plan(Session(workplace.study(), workplace.environment))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize(
    "names", [("a", "b", "c", "d"), ("paraphrased_by_a_large_model", *"bcd")], ids=["short", "long"]
)
def test_no_number_is_cut_at_80_columns(workplace, said, monkeypatch, names):
    """Every cell of a wide terminal is whole in a narrow one, where the settings take several tables."""
    workplace.write_rows("originals.jsonl", workplace.rows(120, repeat=4))
    settings = {name: {"method": "word_dropout"} for name in names}
    workplace.write_study(settings=settings, top_k="all", partition_size=60)
    table, _ = said(workplace)
    assert table["pairs"] == [*["14,400"] * 4, "57,600"]
    monkeypatch.setattr(console, "width", 80)
    _, narrow = said(workplace)
    lines = narrow.splitlines()
    assert max(map(len, lines[3:])) <= 80  # but for the heading, which the terminal may break
    rows = [re.split(r"  +", line.strip()) for line in lines]
    for label, cells in table.items():
        found = [cell for row in rows if row[0] == label.removeprefix("split: ") for cell in row[1:]]
        assert [cell for cell in cells if re.search(r"\d", cell) and cell not in found] == [], label


def test_texts_that_would_be_sent_to_an_api(workplace, said):
    settings = {"paraphrased": {"method": "paraphrase", "model": "a-model"}}
    workplace.write_study(settings=settings)
    _, text = said(workplace)
    assert re.search(
        r"- paraphrased: sends 40 texts to api\.openai\.com: about [\d,]+ tokens with instructions and answers "
        r"\(a-model, 20 samples\)",
        text,
    )


def test_a_model_that_cannot_be_had(workplace):
    workplace.write_study(model={"name": "no/where"})
    with pytest.raises(ModelError, match="model no/where: not a local folder, and not available from the Hub"):
        print_plan(Session(workplace.study(), workplace.environment))


def test_a_model_that_is_not_trained_cannot_be_measured(workplace):
    with pytest.raises(ModelError, match="there is nothing to measure yet; run a partition first"):
        print_plan(Session(workplace.study(), workplace.environment), measure=True)
    assert not workplace.data.exists()


@pytest.mark.slow
def test_of_stored_tables_the_plan_is_exact(finished, without_gradients, said):
    """The passes are those that the run of the same tables needed."""
    before = without_gradients.digests()
    table, text = said(without_gradients)
    assert table["partitions to compute"] == [*["3 of 3"] * 3, "9 of 9"]
    assert table["counts"] == ["exact"] * 4
    assert "estimated" not in text
    assert "not counted" not in text
    settings = list(without_gradients.study().settings)
    *alone, together = numbers(table["samples run (passes)"])
    # One job ran all settings.
    assert {measured(finished, setting)["passes"] for setting in settings} == {together}
    assert together == sum(alone) - 2 * 20, "originals are run once"
    for passes, split in zip([*alone, together], numbers(table["split: samples run (passes)"]), strict=True):
        assert split > passes
    rows = numbers(table["rows of the partitions"])
    assert rows.pop() == sum(rows)
    store = finished.store()
    for setting, count in zip(settings, rows, strict=True):
        stored = [store.read(store.lineage.key(name, setting)).height for name in GRADIENT_TABLES]
        assert count == sum(stored)
    assert without_gradients.digests() == before


@pytest.mark.slow
def test_what_is_computed_is_counted_as_if_it_were_not(finished, without_gradients, said):
    table, text = said(finished)
    assert table["partitions to compute"] == [*["0 of 3"] * 3, "0 of 9"]
    assert "already computed; the numbers are for computing everything again (--force)" in text
    assert table["samples run (passes)"] == said(without_gradients)[0]["samples run (passes)"]


@pytest.mark.slow
def test_only_what_is_missing_is_counted(computed, said):
    computed.delete("tiny/word_dropout/dot_products/0014-0019.parquet")
    table, _ = said(computed)
    place = list(computed.study().settings).index("word_dropout")
    assert table["partitions to compute"][place] == "1 of 3"
    assert table["queries"][place] == "6"


@pytest.mark.slow
def test_measured_rates_give_times_here_and_in_runs(without_gradients):
    """By the command, so that all processes have the same number of threads."""
    output = without_gradients.gradsim("plan", "tiny", "--measure")
    (kept,) = json.loads((without_gradients.data / "tiny" / "rates.json").read_text())
    assert kept["precision"] == "float32"
    assert 0 < kept["operations_per_second"] < math.inf
    assert re.search(r"^ +time( +[\d.]+ s){4} *$", output, re.MULTILINE)
    assert f"measured here {kept['measured']}" in output
    again = without_gradients.gradsim("plan", "tiny")
    assert output.endswith(again), "the rates are kept"

    without_gradients.gradsim("run", "tiny", "--setting", "word_dropout", "--computation", "dot-product")
    cost = measured(without_gradients, "word_dropout")
    assert cost["passes"] == cost["passes_predicted"] == 40
    assert 0 < cost["gradient_bytes"] <= cost["gradient_bytes_predicted"]
    assert cost["working_bytes_predicted"] > 0
    assert cost["device_memory_bytes_predicted"] > cost["gradient_bytes_predicted"]
    assert cost["peak_memory_bytes"] > 0
    assert (cost["memory_retries"], cost["checkpoint"]) == (0, False)
    assert 0 < cost["pass_seconds"] < cost["seconds"]
    assert 0 < cost["pass_seconds_predicted"] < math.inf


def measured(place, setting):
    """What the last run recorded of a setting's dots."""
    with place.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["tiny", setting, "dot_products"]))
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}
