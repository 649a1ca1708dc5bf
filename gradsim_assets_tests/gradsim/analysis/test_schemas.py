import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gradsim import analysis
from gradsim.analysis import QUESTIONS, LayerDots
from gradsim.tables.lineage import CODE_VERSIONS


def stored(study) -> dict[str, pl.DataFrame]:
    """Everything that a question may read, of a study with one projection."""
    similarity = analysis.gradient_similarity(*study.tables)
    layers = LayerDots.from_tables(*study.tables).layers
    components = [("attention q", "MLP up")[at % 2] for at in range(len(layers))]
    is_source = pl.col("query_id") == pl.col("original_id")
    tokens = pl.DataFrame({"id": list(study.originals), "labels": [[-100, 1]] * len(study.originals)})
    return {
        **dict(zip(("dot_products", "query_self", "original_self"), study.tables, strict=True)),
        "gradient_similarity": similarity,
        "projected_similarity": similarity.with_columns(projection=pl.lit("mask"), dimension=pl.lit(2, pl.Int64)),
        "candidates": similarity.select("query_id", "original_id", "rank", score=1.0, forced=is_source),
        "projections": pl.DataFrame(
            {"projection": "mask", "dimension": 2, "kind": "mask", "scaling": "unbiased", "layer": layers}
        ).with_columns(parameters=pl.lit(2, pl.Int64), layer_dimension=pl.lit(1, pl.Int64)),
        "parameters_per_layer": analysis.parameters_per_layer(
            pl.DataFrame({"layer": layers, "parameters": 2})
        ).with_columns(component=pl.Series(components)),
        "original_tokens": tokens,
        "query_tokens": tokens,
    }


def answers(study) -> dict[str, pl.DataFrame]:
    """Every question's answer, from the tables that it says it reads."""
    tables = stored(study)
    for name, question in QUESTIONS.items():
        tables[name] = question.answer({read: tables[read] for read in question.inputs}, 0)
    return {name: tables[name] for name in QUESTIONS}


def check(name: str, table: pl.DataFrame) -> None:
    schema = analysis.SCHEMAS[name]
    assert {column: dtype for column, (dtype, _) in schema.items()} == dict(table.schema), name
    assert all(description for _, description in schema.values()), name


def test_tables_have_the_documented_columns(study) -> None:
    tables = answers(study)
    pair_layers = study.dot_products.join(study.query_self, on=["query_id", "layer"]).join(
        study.original_self, on=["original_id", "layer"], suffix="_original"
    )
    reference = pair_layers.rename({"self_dot": "query_self", "self_dot_original": "original_self"})
    layer_dots = LayerDots.from_tables(*study.tables)
    criteria = {criterion: tables[f"greedy_by_{criterion}"] for criterion in analysis.Criterion}
    held_out = tables["held_out_selection"]
    tables |= {
        "gradient_audit": analysis.gradient_audit(
            reference,
            study.dot_products,
            study.query_self.with_columns(loss=pl.lit(1.0)),
            study.original_self.with_columns(loss=pl.lit(1.0)),
        ),
        "parameters_per_layer": stored(study)["parameters_per_layer"],
        "selection_transfer": analysis.selection_transfer(
            dict.fromkeys(("one", "other"), layer_dots),
            dict.fromkeys(("one", "other"), criteria),
            dict.fromkeys(("one", "other"), held_out),
            seed=0,
        ),
    }
    assert tables.keys() == analysis.SCHEMAS.keys()
    for name, table in tables.items():
        check(name, table)
        assert len(table), name


ONE, ZERO = np.ones((3, 2)), np.zeros((3, 2))


@pytest.mark.parametrize(
    ("queries", "originals", "lists"),
    [
        ({"a": ONE}, {"a": ONE}, {"a": ["a"]}),
        ({"a": ONE[:1]}, {"a": ONE[:1], "b": ONE[:1]}, {"a": ["b", "a"]}),
        ({"a": ONE, "b": ONE}, {"a": ONE, "b": ONE}, {"a": ["a"], "b": ["a", "b"]}),
        ({"a": ZERO, "b": ZERO}, {"a": ONE, "b": ZERO}, {"a": ["a", "b"], "b": ["a", "b"]}),
    ],
    ids=["one query, one candidate", "one layer", "ties everywhere", "zero gradients"],
)
def test_studies_that_say_little_are_answered_without_nonsense(study_of, queries, originals, lists) -> None:
    for name, table in answers(study_of(queries, originals, lists)).items():
        check(name, table)
        for column in table.select(pl.col(pl.Float64)):
            assert all(math.isfinite(value) for value in column.drop_nulls()), (name, column)


def test_analysis_is_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'dagster', 'matplotlib'}"
    code = f"import sys, gradsim.analysis; print(sorted({heavy} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == "[]"


SNAPSHOT = Path(__file__).with_name("answers.json")


def test_answers_that_change_have_another_code_version(study_of) -> None:
    """Or stored ones would stay fresh. Raise `CODE_VERSIONS`, delete the file to record anew, and read its diff."""
    random = np.random.default_rng(0)
    ids = [f"s{number:02d}" for number in range(30)]
    originals = {name: random.normal(size=(6, 2)) for name in ids}
    queries = {name: original + random.normal(0, 1.5, (6, 2)) for name, original in originals.items()}
    lists = {name: [ids[(at + step) % 30] for step in range(4)] for at, name in enumerate(ids)}
    found = {
        f"{name} {CODE_VERSIONS.get(name, 1)}": digest(table)
        for name, table in answers(study_of(queries, originals, lists)).items()
    }
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        pytest.fail(f"recorded {SNAPSHOT}: read it, and run again")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def digest(table: pl.DataFrame) -> str:
    """Of rows whose numbers are rounded, so that another processor's last digits are the same."""
    rounded = table.with_columns(pl.col(pl.Float64).round(6) + 0.0)  # and no negative zero
    return hashlib.sha256(rounded.write_json().encode()).hexdigest()[:12]
