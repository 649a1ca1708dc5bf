"""From the files of a study to its tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import polars as pl

from gradsim.published.checking import QuerySet, check_same_queries, check_sample_size
from gradsim.published.frames import TableRows, in_order
from gradsim.published.layout import PublishedFiles, parameters_path
from gradsim.published.merging import Merged
from gradsim.published.noticing import order_findings, setting_findings
from gradsim.published.reading import Reader, read_parameters
from gradsim.published.settings import MergedSetting, read_setting

# How our tables name the original's only kind of projection.
PROJECTION = "rademacher_as_published"


@dataclass(frozen=True, slots=True)
class PublishedSetting:
    """A setting's tables, columns and row order as `gradsim.tables` has them; `score` and `forced` are null.

    Attributes:
        candidates: ranks are the order in the JSON.
        dot_products: all pairs and layers.
        query_self: of all queries.
        original_self: of all originals that the files have.
        gradient_similarity: None where it was not published.
        projected_similarity: None where it was not published.
    """

    candidates: pl.DataFrame
    dot_products: pl.DataFrame
    query_self: pl.DataFrame
    original_self: pl.DataFrame
    gradient_similarity: pl.DataFrame | None
    projected_similarity: pl.DataFrame | None


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of one model and sample size.

    Attributes:
        model: its name.
        sample_size: `full` or a number.
        ids: queries in the order of the first setting's dot products, then originals that are no query's source.
        layers: in the order of the JSON, the model's.
        parameters: layer -> number of its elements; None where it is not known.
        settings: name -> tables.
        findings: what was noticed and how it was resolved, in sentences.
        digest: of the names and contents of all files that were read.
    """

    model: str
    sample_size: str
    ids: tuple[str, ...]
    layers: tuple[str, ...]
    parameters: Mapping[str, int | None]
    settings: Mapping[str, PublishedSetting]
    findings: tuple[str, ...]
    digest: str


def read_published(files: PublishedFiles) -> Published:
    """Reads all files of a study and checks them against each other.

    What stands in several files is taken from the first, a table's whole file before its parts and those in order; the
    others must agree with it within rule 5's tolerance: self dots relative to themselves, dots to the product of the
    layer's norms, cosines to one.

    Raises:
        TableError: a file is malformed, files contradict each other, or something is missing.
    """
    reader = Reader(files.folder)
    findings = list(files.findings)
    settings: dict[str, MergedSetting] = {}
    layers: tuple[str, ...] | None = None
    for name, setting_files in files.settings.items():
        settings[name] = read_setting(reader, setting_files, layers)
        layers = settings[name].dots.columns
        findings += (f"Setting {name}: {each}." for each in setting_findings(setting_files, settings[name]))
    assert layers is not None

    queries = [QuerySet(setting.dots.names[0], setting.queries) for setting in settings.values()]
    check_same_queries(queries)
    check_sample_size(files.sample_size, queries[0])
    findings += order_findings(settings)
    ids = _ids(queries[0].queries, settings.values())
    rows = TableRows(ids, layers)
    return Published(
        model=files.model,
        sample_size=files.sample_size,
        ids=ids,
        layers=layers,
        parameters=_parameters(reader, files, layers, findings),
        settings={name: _tables(rows, setting) for name, setting in settings.items()},
        findings=tuple(findings),
        digest=reader.digest(),
    )


def _ids(queries: tuple[str, ...], settings: Iterable[MergedSetting]) -> tuple[str, ...]:
    settings = list(settings)
    compared = (original for setting in settings for _, original in setting.dots.keys)
    others = (original for setting in settings for (original,) in setting.original_self.keys)
    return tuple(dict.fromkeys(chain(queries, compared, others)))


def _parameters(
    reader: Reader, files: PublishedFiles, layers: Sequence[str], findings: list[str]
) -> dict[str, int | None]:
    known = read_parameters(reader, files.parameters) if files.parameters else {}
    if unknown := [layer for layer in layers if layer not in known]:
        reason = (
            f"{files.parameters} lacks them"
            if files.parameters
            else f"there is no {parameters_path(files.folder, files.model)}"
        )
        findings.append(f"The sizes of {len(unknown)} of {len(layers)} layers are not known: {reason}.")
    if others := [layer for layer in known if layer not in set(layers)]:
        findings.append(
            f"Of {len(others)} of the {len(known)} layers in {files.parameters} there are no dots; they were left out."
        )
    return {layer: known.get(layer) for layer in layers}


def _tables(rows: TableRows, setting: MergedSetting) -> PublishedSetting:
    pairs, keys = rows.pairs(setting.dots)

    def with_similarity(merged: Merged) -> pl.DataFrame:
        return pairs.with_columns(pl.Series("similarity", in_order(merged, keys)[:, 0]))

    projected = [
        with_similarity(merged).select(
            pl.lit(PROJECTION).alias("projection"), pl.lit(dimension, pl.Int64).alias("dimension"), pl.all()
        )
        for dimension, merged in setting.projections.items()
    ]
    return PublishedSetting(
        candidates=pairs.with_columns(score=pl.lit(None, pl.Float64), forced=pl.lit(None, pl.Boolean)),
        dot_products=rows.dots(pairs, in_order(setting.dots, keys)),
        query_self=rows.self_dots(setting.query_self, "query_id"),
        original_self=rows.self_dots(setting.original_self, "original_id"),
        gradient_similarity=with_similarity(setting.similarities) if setting.similarities else None,
        projected_similarity=pl.concat(projected) if projected else None,
    )
