import subprocess
import sys

import polars as pl

from gradsim import analysis
from gradsim.analysis import LayerDots


def test_tables_have_the_documented_columns(study) -> None:
    similarity = analysis.gradient_similarity(*study.tables)
    layer_dots = LayerDots.from_tables(*study.tables)
    pair_layers = study.dot_products.join(study.query_self, on=["query_id", "layer"]).join(
        study.original_self, on=["original_id", "layer"], suffix="_original"
    )
    reference = pair_layers.rename({"self_dot": "query_self", "self_dot_original": "original_self"})
    projections = pl.DataFrame(
        {"projection": "mask", "dimension": 2, "kind": "mask", "scaling": "unbiased", "layer": layer_dots.layers}
    ).with_columns(parameters=pl.lit(2, pl.Int64), layer_dimension=pl.lit(1, pl.Int64))
    projected = similarity.with_columns(projection=pl.lit("mask"), dimension=pl.lit(2, pl.Int64))
    tables = {
        "gradient_similarity": similarity,
        "accuracy": analysis.accuracy(similarity),
        "controls": analysis.controls(similarity),
        "best_similarity": analysis.best_similarity(similarity),
        "decisions": analysis.decisions(similarity),
        "accuracy_per_layer": analysis.accuracy_per_layer(layer_dots),
        "similarity_to_full_gradient": analysis.similarity_to_full_gradient(layer_dots),
        "projection_audit": analysis.projection_audit(
            analysis.projection_errors(layer_dots, projected, projections, seed=0)
        ),
        "gradient_audit": analysis.gradient_audit(reference, *study.tables),
        "parameters_per_layer": analysis.parameters_per_layer(pl.DataFrame({"layer": ["w"], "parameters": [1]})),
    }
    assert tables.keys() == analysis.SCHEMAS.keys()
    for name, table in tables.items():
        schema = analysis.SCHEMAS[name]
        assert {column: dtype for column, (dtype, _) in schema.items()} == dict(table.schema), name
        assert all(description for _, description in schema.values()), name


def test_analysis_is_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'dagster', 'matplotlib'}"
    code = f"import sys, gradsim.analysis; print(sorted({heavy} & sys.modules.keys()))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == "[]"
