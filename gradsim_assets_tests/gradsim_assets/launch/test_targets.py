"""What is planned where tables are there, gone, damaged or stale. They hold no rows: only their states count."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from gradsim.study import Study
from gradsim.study.partitions import select_partitions
from gradsim.tables import SCHEMAS, Store, TableKey
from gradsim.tables.lineage import ANALYSES, COMBINED_TABLES, GRADIENT_TABLES, PROJECTED_DOT_TABLES
from gradsim_assets.launch.targets import plan_launches

IDS = [f"sample_{position}" for position in range(10)]
KEYS = ["0000-0001", "0002-0003", "0004-0005", "0006-0007", "0008-0009"]
VARIANTS = ("queries", "tokenized", "candidates")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study of five partitions; nothing is computed yet."""
    return store_in(tmp_path)


@pytest.fixture(scope="module")
def all_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study's tables, all of them fresh."""
    store = store_in(tmp_path_factory.mktemp("filled"))
    write(store, {node.key for node in store.lineage})
    return store.root


@pytest.fixture
def filled(all_tables: Path, store: Store) -> Store:
    """All of the study's tables are there and fresh."""
    shutil.copytree(all_tables, store.root)
    return store


def store_in(folder: Path) -> Store:
    (folder / "originals.jsonl").write_text(json.dumps({"id": "x"}))
    settings = {"generated": {"method": "generate", "prompts": "dropped"}, "dropped": {"method": "word_dropout"}}
    definition = {
        "name": "mine",
        "dataset": {"path": folder / "originals.jsonl"},
        "samples": 10,
        "model": {"reference": {}},
        "settings": settings,
        "partition_size": 2,
    }
    return Store(folder / "store", Study.model_validate(definition))


def write(store: Store, keys: set[TableKey]) -> None:
    for node in store.lineage:
        for partition in store.partitions(node.key) if node.key in keys else ():
            if node.key.name == "report":
                store.write_report("")
                continue
            frame = SCHEMAS[node.key.name].empty()
            if node.key.name == "samples":
                frame = frame.clear(len(IDS)).with_columns(pl.Series("id", IDS))
            store.write(node.key, frame, partition)


def plan(
    store: Store, *tables: str, keys: list[str] | None = None, force: bool = False, runs: int = 1
) -> list[tuple[list[str], list[str]]]:
    """Launches for tables named without the study's name, as names of tables and of partitions; all tables if none."""
    wanted = [node.key for node in store.lineage if not tables or "/".join(node.key.parts[1:]) in tables]
    partitions = select_partitions(store.study.partitions, keys or ())
    launches = plan_launches(store, wanted, partitions, force=force, runs=runs)
    return [(["/".join(key.parts[1:]) for key in launch.keys], list(launch.partitions)) for launch in launches]


def of(setting: str, *tables: str) -> list[str]:
    return [f"{setting}/{table}" for table in tables]


def combined(setting: str) -> list[str]:
    results = of(setting, *(f"results/{table}" for table in COMBINED_TABLES))
    return results + of(setting, *(f"analysis/{name}" for name in ANALYSES))


SHARED = ["samples", "model", "tokenized", "projections", "analysis/parameters_per_layer"]
REST = [*combined("dropped"), *combined("generated"), "analysis/selection_transfer", "report"]
OF_DOTS = (
    "accuracy_per_layer",
    "layer_differences",
    "similarity_to_full_gradient",
    "layer_means",
    "attention_against_mlp",
    "divergence",
    "similarity_over_layers",
    "greedy_by_accuracy",
    "greedy_by_similarity",
    "selection_under_budget",
    "select_or_project",
    "held_out_selection",
    "projection_audit",
    "gradient_audit",
)
"""The analyses of a setting that dots of layers bear on."""

MADE_OF_DOTS = [*of("dropped", *(f"analysis/{name}" for name in OF_DOTS)), "analysis/selection_transfer", "report"]


def test_a_fresh_store_needs_all_of_it_in_order(store: Store) -> None:
    """All settings in one run, for one job; generated queries come after the prompts that they take."""
    assert plan(store) == [
        (SHARED, []),
        ([*of("dropped", *VARIANTS, *GRADIENT_TABLES), *of("generated", *VARIANTS, *GRADIENT_TABLES)], KEYS),
        (REST, []),
    ]


def test_nothing_where_nothing_is_stale(filled: Store) -> None:
    assert plan(filled) == []


def test_queries_alone(store: Store) -> None:
    assert plan(store, "generated/queries") == [
        (["samples", "model"], []),
        (["dropped/queries", "generated/queries"], KEYS),
    ]


def test_some_partitions_of_one_table(store: Store) -> None:
    """Only what it is made from, and only of those partitions; its own combined table is not asked for."""
    assert plan(store, "dropped/query_self", keys=[KEYS[1], KEYS[3]]) == [
        (["samples", "model", "tokenized"], []),
        (of("dropped", *VARIANTS, "query_self"), [KEYS[1]]),
        (of("dropped", *VARIANTS, "query_self"), [KEYS[3]]),
    ]


def test_a_damaged_partition_in_the_middle(filled: Store) -> None:
    key = filled.lineage.key("dot_products", "dropped")
    filled.path(key, KEYS[2]).write_bytes(b"damaged")
    assert plan(filled) == [
        (["dropped/dot_products"], [KEYS[2]]),
        (["dropped/results/dot_products", *MADE_OF_DOTS], []),
    ]


def test_partitions_that_need_other_tables_are_other_runs(store: Store) -> None:
    """A run materializes the same tables for a range of partitions without gaps."""
    key = store.lineage.key
    shared = {key("samples"), key("model"), key("tokenized")}
    write(store, shared | {key(table, "dropped") for table in (*VARIANTS, "query_self")})
    for partition in KEYS:
        if partition != KEYS[2]:
            store.path(store.lineage.key("query_self", "dropped"), partition).unlink()
    store.path(store.lineage.key("candidates", "dropped"), KEYS[4]).unlink()
    assert plan(store, "dropped/query_self") == [
        (["dropped/query_self"], KEYS[:2]),
        (["dropped/query_self"], [KEYS[3]]),
        (["dropped/candidates", "dropped/query_self"], [KEYS[4]]),
    ]


def test_several_runs(store: Store) -> None:
    launches = plan(store, "dropped/query_self", runs=2)
    assert [partitions for _, partitions in launches] == [[], KEYS[:3], KEYS[3:]]
    assert [partitions for _, partitions in plan(store, "dropped/query_self", runs=9)] == [[], *([key] for key in KEYS)]


def test_force_makes_the_targets_and_what_is_made_from_them(filled: Store) -> None:
    assert plan(filled, "dropped/gradient_similarity", keys=KEYS[:2], force=True) == [
        (["dropped/gradient_similarity"], KEYS[:2])
    ]
    assert plan(filled, force=True) == [
        (SHARED, []),
        ([*of("dropped", *VARIANTS, *GRADIENT_TABLES), *of("generated", *VARIANTS, *GRADIENT_TABLES)], KEYS),
        (REST, []),
    ]


def test_the_report_of_forced_partitions(filled: Store) -> None:
    """What is made again makes what is asked for below it stale."""
    targets = ("dropped/query_self", "dropped/results/query_self", "report")
    assert plan(filled, *targets, keys=KEYS[:1], force=True) == [
        (["dropped/query_self"], KEYS[:1]),
        (["dropped/results/query_self", *MADE_OF_DOTS], []),
    ]


def test_combined_tables_alone(filled: Store) -> None:
    names = of("dropped", *(f"results/{table}" for table in COMBINED_TABLES))
    for name in COMBINED_TABLES:
        filled.path(filled.lineage.key(name, "dropped", "results")).unlink()
    assert plan(filled, *names) == [(names, [])]


def test_a_combined_table_needs_all_partitions(filled: Store) -> None:
    """Of whatever partitions something else is asked for."""
    for partition in (KEYS[0], KEYS[4]):
        filled.path(filled.lineage.key("query_self", "dropped"), partition).unlink()
    assert plan(filled, "dropped/results/query_self", keys=[KEYS[0]]) == [
        (["dropped/query_self"], [KEYS[0]]),
        (["dropped/query_self"], [KEYS[4]]),
        (["dropped/results/query_self"], []),
    ]


def test_an_edited_data_file_makes_everything_again(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "originals.jsonl").write_text(json.dumps({"id": "y"}))
    launches = plan_launches(filled, [filled.lineage.key("report")], filled.study.partitions)
    assert [launch.partitions for launch in launches] == [(), tuple(KEYS), ()]
    # Nothing is made of the projected dots that the report shows.
    unused = [node.key for node in filled.lineage if node.key.name in PROJECTED_DOT_TABLES]
    assert {key for launch in launches for key in launch.keys} == {node.key for node in filled.lineage} - set(unused)
