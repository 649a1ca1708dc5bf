"""Read the files of a study, check them against each other, and assemble the study's tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby

import numpy as np
import polars as pl

from gradsim.analysis.arrays import Floats
from gradsim.published import checking
from gradsim.published.finding import PublishedFiles, SettingFiles
from gradsim.published.layout import parameters_path
from gradsim.published.merging import Merged, agreement, merge
from gradsim.published.reading import (
    Block,
    Key,
    Reader,
    read_dots,
    read_parameters,
    read_projections,
    read_similarities,
)

PROJECTION = "rademacher_as_published"  # our name of the only kind of projection in the original study


@dataclass(frozen=True, slots=True)
class Published:
    """Published results of one model and sample size.

    Attributes:
        model: Model name.
        sample_size: `full` or a number.
        ids: Queries in the order of the first setting's dot products, then the originals that are not queries.
        layers: Layers in the order of the JSON files, which is the model's.
        parameters: Layer -> number of parameters; None if unknown.
        settings: Setting name -> tables by name, with the columns and row order of `gradsim.tables`. Columns that were
            not published are null (`score`, `forced`, `loss` and `noise`), tables that were not are absent.
        findings: Sentences about irregularities and how they were resolved.
        digest: Digest of the names and contents of all files.
    """

    model: str
    sample_size: str
    ids: tuple[str, ...]
    layers: tuple[str, ...]
    parameters: Mapping[str, int | None]
    settings: Mapping[str, Mapping[str, pl.DataFrame]]
    findings: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class _Setting:
    """Merged tables of one setting, with the same queries, pairs and layers.

    Attributes:
        dots: Dot products, (pairs, layers).
        query_self: Self dot products of every query, (queries, layers).
        original_self: Self dot products of every original in a pair, and perhaps of others, (originals, layers).
        similarities: Gradient similarities of the pairs, if published.
        projections: Dimension -> projected similarities of the pairs.
    """

    dots: Merged
    query_self: Merged
    original_self: Merged
    similarities: Merged | None
    projections: Mapping[int, Merged]

    @property
    def queries(self) -> tuple[str, ...]:
        """Queries in order, without duplicates."""
        return tuple(dict.fromkeys(query for query, _ in self.dots.keys))

    @cached_property
    def norms(self) -> Floats:
        """Product of the two gradient norms of each pair, (pairs, layers)."""
        queries = self.query_self.values_of([(query,) for query, _ in self.dots.keys])
        originals = self.original_self.values_of([(original,) for _, original in self.dots.keys])
        return np.sqrt(queries) * np.sqrt(originals)

    def cosines(self) -> Iterator[tuple[str, Merged]]:
        """Yield every table of cosines with a plural noun for its values."""
        if self.similarities:
            yield "gradient similarities", self.similarities
        for dimension, merged in self.projections.items():
            yield f"similarities of projections to {dimension} dimensions", merged


def read_published(files: PublishedFiles) -> Published:
    """Read all files of a study and check them against each other.

    A value in several files is taken from the first one: a whole file precedes its parts, which are in order. The
    others must agree with it within the tolerance of rule 5, relative to the value itself for self dot products, to the
    product of the layer's gradient norms for dot products, and absolutely for cosines.

    Raises:
        TableError: A file is malformed, files contradict each other, or something is missing.
    """
    reader = Reader(files.folder)
    findings = list(files.findings)
    settings: dict[str, _Setting] = {}
    layers: tuple[str, ...] | None = None
    for name, setting_files in files.settings.items():
        settings[name] = _read_setting(reader, setting_files, layers)
        layers = settings[name].dots.columns
        for notes in (_file_findings(setting_files), _content_findings(settings[name])):
            findings += (f"Setting {name}: {each}." for each in notes)
    assert layers is not None

    queries = [checking.QuerySet(setting.dots.names[0], setting.queries) for setting in settings.values()]
    checking.check_same_queries(queries)
    checking.check_sample_size(files.sample_size, queries[0])
    first = next(iter(settings))
    findings += (
        f"Setting {name}: the queries were reordered to match setting {first}."
        for name, setting in settings.items()
        if setting.queries != settings[first].queries
    )
    compared = (original for setting in settings.values() for _, original in setting.dots.keys)
    others = (original for setting in settings.values() for (original,) in setting.original_self.keys)
    ids = tuple(dict.fromkeys(chain(queries[0].queries, compared, others)))
    parameters = _parameters(reader, files, layers, findings)
    return Published(
        model=files.model,
        sample_size=files.sample_size,
        ids=ids,
        layers=layers,
        parameters=parameters,
        settings={name: _tables(setting, ids, layers) for name, setting in settings.items()},
        findings=tuple(findings),
        digest=reader.digest(),
    )


def _read_setting(reader: Reader, files: SettingFiles, layers: tuple[str, ...] | None) -> _Setting:
    """Read and check the files of a setting, except that repeated values may still disagree.

    Args:
        reader: Reader of the files.
        files: Files of the setting.
        layers: Layers in order; None for those of the first file of dot products.

    Raises:
        TableError: A file is malformed or does not match the others.
    """
    tables: dict[str, list[Block]] = {"dot_products": [], "query_self": [], "original_self": []}
    for table, blocks in tables.items():
        for source in files.tables[table]:
            blocks.append(read_dots(reader, source, table, layers))
            layers = blocks[-1].columns
    dots, query_self, original_self = tables.values()
    similarities = [read_similarities(reader, source) for source in files.tables["gradient_similarity"]]
    projections: dict[int, list[Block]] = {}
    for source in files.tables["projections"]:
        for dimension, block in read_projections(reader, source).items():
            projections.setdefault(dimension, []).append(block)

    tables_of_queries = [dots, query_self, *([similarities] if similarities else []), *projections.values()]
    checking.check_same_queries(list(chain.from_iterable(checking.query_sets(blocks) for blocks in tables_of_queries)))
    checking.check_lists(dots)
    setting = _Setting(
        dots=merge(dots),
        query_self=merge(query_self),
        original_self=merge(original_self),
        similarities=merge(similarities) if similarities else None,
        projections={dimension: merge(blocks) for dimension, blocks in projections.items()},
    )
    checking.check_last_part(original_self, len(setting.queries))
    checking.check_sources(setting.dots)
    checking.check_samples(setting.dots, setting.query_self, "query")
    checking.check_samples(setting.dots, setting.original_self, "original")
    checking.check_dots(setting.dots, setting.norms)
    for kind, cosines in setting.cosines():
        checking.check_pairs(setting.dots, cosines)
        checking.check_cosines(cosines, kind)
    return setting


def _file_findings(files: SettingFiles) -> Iterator[str]:
    """Yield sentences, without their full stops, about parts and missing files."""
    parts = {table: sum(source.queries is not None for source in sources) for table, sources in files.tables.items()}
    both = [table for table, sources in files.tables.items() if 0 < parts[table] < len(sources)]
    only = [table for table, number in parts.items() if number and table not in both]
    if only:
        yield f"assembled from parts: {', '.join(f'{parts[table]} of {table}' for table in only)}"
    if both:
        yield (
            f"stored whole and in parts: {', '.join(f'{parts[table]} of {table}' for table in both)}; all files were "
            "read, and the whole file takes precedence"
        )
    if not files.tables["gradient_similarity"]:
        others = f" (only for {', '.join(files.other_sizes)})" if files.other_sizes else ""
        yield f"no gradient similarities for this sample size{others}; they will be computed from the dot products"
    if not files.tables["projections"]:
        yield "no random projections for this sample size"


def _content_findings(setting: _Setting) -> Iterator[str]:
    """Yield sentences, without their full stops, about repeated values, row order and unused originals.

    Raises:
        TableError: Two files disagree on a value.
    """
    norms = " of the product of the gradient norms"
    repeats = [
        agreement(setting.query_self, setting.query_self.values, "self dot products of queries", " of their value"),
        agreement(
            setting.original_self, setting.original_self.values, "self dot products of originals", " of their value"
        ),
        agreement(setting.dots, setting.norms, "dot products", norms),
        *(agreement(merged, np.ones_like(merged.values), kind, "") for kind, merged in setting.cosines()),
    ]
    yield from filter(None, repeats)
    lists = [[original for _, original in pairs] for _, pairs in groupby(setting.dots.keys, key=lambda key: key[0])]
    if len(lists) > 1 and all(len(each) > 1 and each == sorted(each) for each in lists):
        yield (
            f"the candidates of all {len(lists)} queries are in alphabetical order in dot_products, so their ranks may "
            "not be those of BM25"
        )
    for kind, merged in setting.cosines():
        if merged.keys != setting.dots.keys:
            yield f"the {kind} were reordered to match dot_products"
    needed = {original for _, original in setting.dots.keys}
    if unused := sum(original not in needed for (original,) in setting.original_self.keys):
        yield f"kept the self dot products of {unused} originals that are not compared with any query"


def _parameters(
    reader: Reader, files: PublishedFiles, layers: Sequence[str], findings: list[str]
) -> dict[str, int | None]:
    """Return the number of parameters in each layer, and append sentences about mismatches to `findings`."""
    path = files.parameters
    known = read_parameters(reader, path) if path else {}
    if unknown := [layer for layer in layers if layer not in known]:
        reason = f"{path} lacks them" if path else f"{parameters_path(files.folder, files.model)} does not exist"
        findings.append(f"The sizes of {len(unknown)} of {len(layers)} layers are unknown: {reason}.")
    if others := set(known) - set(layers):
        findings.append(f"Ignored {len(others)} of the {len(known)} layers in {path}: they have no dot products.")
    return {layer: known.get(layer) for layer in layers}


def _tables(setting: _Setting, ids: Sequence[str], layers: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return the tables of a setting, with queries and self dot products in the order of the ids."""
    samples = pl.Enum(ids)
    every_layer = pl.DataFrame({"layer": layers}, schema={"layer": pl.Enum(layers)})
    position = {sample: index for index, sample in enumerate(ids)}

    def ordered(merged: Merged, *columns: str) -> tuple[list[Key], pl.DataFrame]:
        keys = sorted(merged.keys, key=lambda key: position[key[0]])
        return keys, pl.DataFrame(
            dict(zip(columns, zip(*keys, strict=True), strict=True)), schema=dict.fromkeys(columns, samples)
        )

    def by_layer(rows: pl.DataFrame, name: str, values: Floats) -> pl.DataFrame:
        return rows.join(every_layer, how="cross", maintain_order="left_right").with_columns(
            pl.Series(name, values.ravel())
        )

    def self_dots(merged: Merged, column: str) -> pl.DataFrame:
        keys, rows = ordered(merged, column)
        return by_layer(rows, "self_dot", merged.values_of(keys)).with_columns(
            loss=pl.lit(None, pl.Float64), noise=pl.lit(None, pl.Boolean)
        )

    def similarity(merged: Merged) -> pl.DataFrame:
        return pairs.with_columns(pl.Series("similarity", merged.values_of(keys)[:, 0]))

    keys, pairs = ordered(setting.dots, "query_id", "original_id")
    pairs = pairs.with_columns(rank=pl.int_range(pl.len(), dtype=pl.Int32).over("query_id"))
    tables = {
        "candidates": pairs.with_columns(score=pl.lit(None, pl.Float64), forced=pl.lit(None, pl.Boolean)),
        "dot_products": by_layer(pairs, "dot", setting.dots.values_of(keys)),
        "query_self": self_dots(setting.query_self, "query_id"),
        "original_self": self_dots(setting.original_self, "original_id"),
    }
    if setting.similarities:
        tables["gradient_similarity"] = similarity(setting.similarities)
    if setting.projections:
        tables["projected_similarity"] = pl.concat(
            similarity(merged).select(
                pl.lit(PROJECTION).alias("projection"), pl.lit(dimension, pl.Int64).alias("dimension"), pl.all()
            )
            for dimension, merged in setting.projections.items()
        )
    return tables
