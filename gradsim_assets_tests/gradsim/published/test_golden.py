"""The published results: reading gives the golden tables, and writing gives the original files."""

import hashlib
from pathlib import Path

import polars as pl
import pytest

from gradsim.published import Published, find_published, read_published, write_published
from gradsim_assets_tests.gradsim.published.layout import MODEL, SETTINGS, write_golden_layout

pytestmark = pytest.mark.slow

# Git blob hashes of the combined files in the original study's repository.
BLOBS = {
    ("paraphrased", "dot_products"): "178b54d802df1ac12218b16dfd38246df4833cda",
    ("paraphrased", "paraphrased_dot_products"): "fb4a5b8c8f49cf7444b8657d3b50cd0de941dcc2",
    ("paraphrased", "original_dot_products"): "615509e7322efd967d1aa45475922ac1361c0fa4",
    ("model_generated", "dot_products"): "02a914a3e78b14ad2dfdbcebe28cb6be15258ff5",
    ("model_generated", "paraphrased_dot_products"): "7bd97b677f583f62614794905e489b7ab5fe422d",
    ("model_generated", "original_dot_products"): "9a7074ada671cac7e18c02e166d129e164909437",
}


def blob(path: Path) -> str:
    """Return the git blob hash of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(scope="module")
def whole(golden_layout: Path) -> Published:
    return read_published(find_published(golden_layout))


@pytest.fixture(scope="module")
def parts(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    return read_published(find_published(write_golden_layout(golden, tmp_path_factory.mktemp("parts"), parts=True)))


def test_the_recipe_gives_the_originals_files(golden_layout: Path) -> None:
    folder = golden_layout / "data/dot_products"
    assert {key: blob(folder / key[0] / MODEL / "sample_size/full" / f"{key[1]}.json") for key in BLOBS} == BLOBS


def test_all_tables_are_read(golden: Path, whole: Published) -> None:
    published = golden / "published"
    assert (whole.model, whole.sample_size, tuple(whole.settings)) == (MODEL, "full", SETTINGS)
    assert (len(whole.ids), len(whole.layers), sum(filter(None, whole.parameters.values()))) == (
        988,
        113,
        1_176_764_416,
    )
    names = {"projected_similarity": "random_projection"}
    for setting, tables in whole.settings.items():
        for table, frame in tables.items():
            if table == "candidates":
                continue
            expected = pl.read_parquet(published / f"{names.get(table, table)}_{setting}.parquet")
            expected = expected.rename({"projection_dim": "dimension"}, strict=False)
            expected = expected.with_columns(pl.col(pl.Int8).cast(pl.Int32))
            unpublished = [name for name in ("loss", "noise") if name in frame.columns]
            assert all(frame[name].null_count() == frame.height for name in unpublished)
            ours = frame.drop("projection", *unpublished, strict=False)
            assert ours.equals(expected.cast({"dimension": pl.Int64}) if "dimension" in ours.columns else expected)
    assert whole.findings == (
        "Setting model_generated: no gradient similarities for this sample size; they will be computed from the dot "
        "products.",
    )


def test_export_gives_the_originals_files_also_through_parquet(
    golden_layout: Path, whole: Published, tmp_path: Path
) -> None:
    for setting, tables in whole.settings.items():
        stored = {}
        for name, frame in tables.items():
            frame.write_parquet(tmp_path / f"{name}.parquet")
            stored[name] = pl.read_parquet(tmp_path / f"{name}.parquet")
        del stored["candidates"]
        paths = write_published(
            tmp_path / "data", model=whole.model, sample_size=whole.sample_size, setting=setting, **stored
        )
        assert len(paths) == 5 - (setting == "model_generated")
        for path in paths:
            assert path.read_bytes() == (golden_layout / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("setting", SETTINGS)
def test_parts_give_the_same_tables_but_originals_of_the_lowest_part(
    golden: Path, whole: Published, parts: Published, setting: str
) -> None:
    assert (parts.ids, parts.layers) == (whole.ids, whole.layers)
    ours, theirs = dict(parts.settings[setting]), whole.settings[setting]
    assert ours.keys() == theirs.keys()
    originals = ours.pop("original_self")
    assert all(frame.equals(theirs[name]) for name, frame in ours.items())

    by_job = pl.read_parquet(golden / "published" / f"original_self_by_partition_{setting}.parquet")
    lowest = by_job.sort("partition_start", maintain_order=True).unique(
        ["original_id", "layer"], keep="first", maintain_order=True
    )
    lowest = lowest.sort(pl.col("original_id").to_physical(), pl.col("layer").to_physical())
    assert originals.drop("loss", "noise").equals(lowest.drop("partition_start"))
    assert originals["loss"].null_count() == originals["noise"].null_count() == originals.height


def test_what_is_said_of_parts(parts: Published) -> None:
    assert parts.findings == (
        "Setting paraphrased: assembled from parts: 20 of dot_products, 20 of query_self, 20 of original_self, "
        "10 of gradient_similarity, 50 of projections.",
        "Setting paraphrased: 273,686 self dot products of originals are in more than one file and differ by at most "
        "2.9e-06 of their value; the whole file takes precedence, then the parts in order.",
        "Setting model_generated: assembled from parts: 10 of dot_products, 10 of query_self, "
        "10 of original_self, 50 of projections.",
        "Setting model_generated: no gradient similarities for this sample size; they will be computed from the dot "
        "products.",
        "Setting model_generated: 201,931 self dot products of originals are in more than one file and differ by at "
        "most 2.9e-06 of their value; the whole file takes precedence, then the parts in order.",
    )
