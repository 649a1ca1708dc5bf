"""`gradsim query`: the originals nearest to a text, from the stored index, by the real command."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from gradsim.dataset.samples import load_original_file
from gradsim.errors import SampleError
from gradsim.gradients.reference import reference_gradient
from gradsim.gradients.vectors import projected_gradients
from gradsim.models import RunningModel, load_model, tokenize_for_study
from gradsim.partition_job import search
from gradsim.partition_job.inputs import sequences
from gradsim.partition_job.search import Searcher
from gradsim.progress import WorkDone
from gradsim.study.datasets import DatasetLayout
from gradsim.tables import State, Store, read_provenance
from gradsim.tables.index import IndexFile, read_index_provenance

pytestmark = pytest.mark.slow

THING = re.compile(r"^ +(\d+) +(-?[\d.]+) +(s\d\d) +(.+)$", re.MULTILINE)


def own_words(place, position):
    """Prompt and answer of an original."""
    user, assistant = place.rows(20)[position]["messages"]
    return user["content"], assistant["content"]


def test_an_originals_own_words_find_it(finished):
    text, answer = own_words(finished, 7)
    output = finished.gradsim("query", "tiny", text, "--answer", answer, "--top", "3")
    found = THING.findall(output)
    assert [place for place, *_ in found] == ["1", "2", "3"]
    assert found[0][1:3] == ("1.0000", "s07")
    assert found[0][3].strip() == text
    similarities = [float(similarity) for _, similarity, *_ in found]
    assert similarities == sorted(similarities, reverse=True)
    seconds = re.search(r"20 originals compared in ([\d.]+) s", output)
    assert seconds


def test_what_is_stored_are_projected_gradients_of_the_originals(finished):
    """Their cosines are those of `projected_dots`, but for float16."""
    store = finished.store()
    searcher = Searcher(store, store.model_configuration("cpu"))
    query = store.read(store.lineage.key("queries", "word_dropout"))[3]
    nearest = searcher.nearest(query, 20).frame
    stored = store.read(store.lineage.key("projected_similarity", "word_dropout", "results"))
    expected = stored.join(query, left_on="query_id", right_on="id", how="semi")
    both = expected.with_columns(pl.col("original_id").cast(pl.String)).join(nearest, on="original_id", suffix="_found")
    assert both.height == 3
    assert (both["similarity"] - both["similarity_found"]).abs().max() < 2e-3


def test_the_index_is_fresh_and_says_what_it_is(finished):
    store = finished.store()
    key = store.lineage.key("gradient_index")
    ids = []
    for partition in store.partitions(key):
        assert store.state(key, partition) is State.FRESH
        with IndexFile(store.path(key, partition)) as file:
            assert file.header.projection == "sjlt_10pct"
            assert list(file.header.dimensions) == store.layers.categories.to_list()
            assert file.provenance.device == "cpu"
            ids += [sample for batch in file.batches() for sample in batch.ids]
    assert ids == store.ids.categories.to_list()


def damaged(place, change):
    path = place.store().path(place.store().lineage.key("gradient_index"), "0007-0013")
    change(path)
    return path


def test_a_truncated_file_is_an_error_and_is_made_again_alone(computed):
    before = computed.digests()
    path = damaged(computed, lambda path: path.write_bytes(path.read_bytes()[:999]))
    output = computed.gradsim("query", "tiny", "a", "--answer", "b", fails=True)
    assert re.search(rf"error: {re.escape(str(path))}: not a readable table \(.+\); delete it and run again", output)
    computed.gradsim("run", "tiny")
    after = computed.digests()
    assert {name for name in after if after[name] != before.get(name)} == {"tiny/gradient_index/0007-0013.arrow"}


def test_an_index_of_another_definition_is_an_error(computed):
    original = computed.study()
    projection = {"kind": "sjlt", "share": 0.2, "store_projected": True}
    computed.write_study(settings=settings_of(original), projections=[projection])
    output = computed.gradsim("query", "tiny", "a", "--answer", "b", fails=True)
    assert re.search(r"error: .+0000-0006.arrow has fingerprint \w+, the study's definition gives \w+", output)
    shutil.rmtree(computed.data / "tiny/gradient_index")
    output = computed.gradsim("query", "tiny", "a", "--answer", "b", fails=True)
    assert "tiny/gradient_index 0000-0006 is missing in" in output
    assert "materialize it, or run `gradsim run tiny --partition 0000-0006`" in output


def settings_of(study):
    return {name: setting.model_dump(mode="json") for name, setting in study.settings.items()}


def test_a_study_that_stores_nothing(workplace):
    output = workplace.gradsim("query", "tiny", "a", "--answer", "b", fails=True)
    assert "error: study 'tiny' stores no projected gradients; set store_projected: true" in output


@pytest.fixture
def texts(finished, tmp_path):
    """A file of seven texts in another format than the originals', without ids."""
    rows = [
        {"prompt": user["content"].replace("home", "work"), "completion": assistant["content"].upper()}
        for user, assistant in (row["messages"] for row in finished.rows(7))
    ]
    path = tmp_path / "many texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_gives_what_each_text_gives_alone(finished, texts, tmp_path):
    output = tmp_path / "nearest.parquet"
    said = finished.gradsim("query", "tiny", "--file", str(texts), "--output", str(output), "--top", "4", COLUMNS="80")
    frame = pl.read_parquet(output)
    assert frame.schema == {
        "query_id": pl.String,
        "original_id": pl.String,
        "rank": pl.Int32,
        "similarity": pl.Float64,
        "standard_error": pl.Float64,
    }
    assert frame["query_id"].to_list() == [f"row_{number}" for number in range(7) for _ in range(4)]
    assert frame["rank"].to_list() == [0, 1, 2, 3] * 7
    alone = json.loads(texts.read_text(encoding="utf-8").splitlines()[2])
    shown = finished.gradsim("query", "tiny", alone["prompt"], "--answer", alone["completion"], "--top", "4")
    of_file = frame.filter(query_id="row_2").select("similarity", "original_id").iter_rows()
    assert [row[1:3] for row in THING.findall(shown)] == [(f"{value:.4f}", name) for value, name in of_file]
    provenance = read_provenance(output)
    assert (provenance.device, provenance.precision) == ("cpu", "float32")
    assert provenance.fingerprint == read_index_provenance(finished.store().index()[0]).fingerprint

    *lines, last = said.rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    assert last == f"wrote 28 rows: {output}"
    assert re.search(r"7 texts compared with 20 originals in [\d.]+ s", said)
    assert "and 2 more texts" in said
    best = frame.row(0, named=True)
    assert re.search(rf"row_0 +{best['similarity']:.4f} +{best['original_id']} *$", said, re.MULTILINE)


@pytest.mark.parametrize("vector_bytes", [1, 1 << 30])
def test_many_texts_are_as_each_alone(finished, texts, monkeypatch, vector_bytes):
    """In one pass over the index, or in several because their vectors need too much memory."""
    monkeypatch.setattr(search, "_VECTOR_BYTES", vector_bytes)
    store = finished.store()
    searcher = Searcher(store, store.model_configuration("cpu"))
    samples = load_original_file(texts, DatasetLayout()).frame
    works: list[WorkDone] = []
    together = searcher.nearest(samples, 20, exact=True, report=works.append)
    assert together.originals == 20
    alone = pl.concat(searcher.nearest(samples[place], 20, exact=True).frame for place in range(samples.height))
    keys = ["query_id", "original_id"]
    assert together.frame[keys[0]].equals(alone[keys[0]])
    both = together.frame.join(alone, on=keys, validate="1:1", suffix="_alone")
    assert both.height == 7 * 20
    for column in ("similarity", "standard_error", "exact_similarity"):
        np.testing.assert_allclose(both[column], both[f"{column}_alone"], rtol=0, atol=1e-6)
    assert {str(work) for work in works} >= {
        "gradients of the texts: 7 of 7 texts",
        "comparing with the originals: 20 of 20 originals",
    }
    assert works[-1].what == "full gradients"
    assert works[-1].done == works[-1].total


def test_exact_similarities_are_cosines_of_plain_autograd(finished, texts):
    """In float64; the hits are those by projections, in another order."""
    store = finished.store()
    configuration = store.model_configuration("cpu")
    searcher = Searcher(store, configuration)
    samples = load_original_file(texts, DatasetLayout()).frame
    projected = searcher.nearest(samples, 6).frame
    found = searcher.nearest(samples, 6, exact=True).frame
    assert found.columns == [*projected.columns, "exact_similarity"]
    keys = ["query_id", "original_id", "similarity"]
    assert found.sort(keys).select(keys).equals(projected.sort(keys).select(keys))
    assert not found["original_id"].equals(projected["original_id"])
    for _, of_query in found.group_by("query_id"):
        assert of_query["exact_similarity"].is_sorted(descending=True)
        assert of_query["rank"].to_list() == list(range(6))

    model = load_model(replace(configuration, precision="float64"))

    def gradient(sample):
        gradients = reference_gradient(model, sample).values()
        return torch.cat([each.flatten() for each in gradients])

    tokenizer = RunningModel(configuration).tokenizer
    queries = sequences(tokenize_for_study(samples, store.study, tokenizer, model).frame)
    originals = sequences(store.read(store.lineage.key("tokenized")))
    gradients = [{each.id: gradient(each) for each in side} for side in (queries, originals)]
    for query, original, exact in found.select("query_id", "original_id", "exact_similarity").iter_rows():
        a, b = gradients[0][query], gradients[1][original]
        assert exact == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)


def test_exact_similarities_of_one_text_are_shown_beside_projected_ones(finished):
    text, answer = own_words(finished, 7)
    output = finished.gradsim("query", "tiny", text, "--answer", answer, "--top", "3", "--exact")
    assert re.search(r"exact similarity +similarity +original", output)
    assert re.search(r"^ +1 +1\.0000 +1\.0000 +s07 ", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"prompt": "a", "completion": "b"}', '{"prompt": "a"'], "line 2 is not JSON text ("),
        (['{"prompt": "a", "completion": "b"}', '{"prompt": "a"}'], "line 2 has no completion; fix or remove it"),
        (['{"prompt": "a", "completion": "b"}', '{"prompt": " ", "completion": "b"}'], "sample 'row_1' has an empty"),
        (['{"id": "x", "prompt": "a", "completion": "b"}'] * 2, "rows 1 and 2 have the same id 'x'; give every sample"),
        (['{"text": "a"}'], "contains text, but the originals are conversations; write the same"),
        (['{"question": "a"}'], "its columns 'question' fit no format ("),
        ([], "holds no samples; give at least one"),
    ],
)
def test_bad_files(finished, tmp_path, rows, message):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    output = tmp_path / "out.parquet"
    said = finished.gradsim("query", "tiny", "--file", str(path), "--output", str(output), fails=True)
    assert f"error: {path}: {message}" in said
    assert not output.exists()


def test_options_that_do_not_go_together(finished, texts, tmp_path):
    output = str(tmp_path / "out.parquet")
    for arguments, message in (
        ([], "there is no text; enter one, or name a file with many: --file FILE --output FILE"),
        (["a", "--answer", "b", "--output", output], "--output is for the texts of a file; name it with --file"),
        (["a", "--file", str(texts), "--output", output], "--file stands in for TEXT and --answer; leave these out"),
        (["--file", str(texts)], "--file needs a file for the result; add --output FILE.parquet"),
        (["--file", f"{texts}.gone", "--output", output], f"{texts}.gone: no such file; correct --file"),
        (["--file", str(texts), "--output", str(tmp_path / "out.csv")], "is not the name of a Parquet file"),
        (["--file", str(texts), "--output", str(tmp_path / "no/out.parquet")], "is not a folder that you can write"),
    ):
        assert message in finished.gradsim("query", "tiny", *arguments, fails=True)


def test_texts_are_cut_as_the_originals_were(workplace, tmp_path):
    """Otherwise an original's own words, which are longer, would not have its gradient."""
    place, path, output = workplace, tmp_path / "texts.jsonl", tmp_path / "nearest.parquet"
    rows = [*place.rows(17), *place.rows(20, repeat=4)[17:]]
    place.write_rows("originals.jsonl", rows)
    index = [{"kind": "sjlt", "share": 0.1, "store_projected": True}]
    place.write_study(projections=index, max_length=100, truncate="right")
    place.gradsim("run", "tiny")
    store = place.store()
    cut = store.provenance(store.lineage.key("tokenized")).truncated
    assert {"s17", "s18", "s19"} <= cut.keys()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[17:]), encoding="utf-8")
    arguments = ("--file", str(path), "--output", str(output), "--top", "1")
    assert "cut: s17 (first 100 of" in place.gradsim("query", "tiny", *arguments)
    found = pl.read_parquet(output)
    assert found["original_id"].to_list() == found["query_id"].to_list()
    assert found["similarity"].to_list() == pytest.approx([1] * 3, abs=1e-3)
    assert read_provenance(output).truncated == {name: cut[name] for name in ("s17", "s18", "s19")}


def test_texts_that_are_too_long(finished, monkeypatch):
    """They are refused or left out, as originals are."""
    store = finished.store()
    samples = pl.DataFrame([*finished.rows(2), {**finished.rows(1, repeat=9)[0], "id": "long"}])

    index = store.index()
    monkeypatch.setattr(Store, "index", lambda self: index)  # that of another limit

    def searcher(**changes):
        changed = Store(store.root, store.study.model_copy(update={"max_length": 150, **changes}))
        return Searcher(changed, store.model_configuration("cpu"))

    with pytest.raises(
        SampleError, match=r"sample 'long' has [0-9]+ tokens but max_length is 150; correct or remove it$"
    ):
        searcher().nearest(samples, 1)
    excluding = searcher(on_long_sample="exclude")
    found = excluding.nearest(samples, 1)
    assert found.frame["query_id"].to_list() == ["s00", "s01"]
    assert re.fullmatch("[0-9]+ tokens, max_length is 150", found.provenance.excluded["long"])
    with pytest.raises(SampleError, match=r"^sample 'long' is excluded \(.+ is 150\); correct it$"):
        excluding.nearest(samples[2:], 1)


def test_texts_without_a_finite_gradient_are_named(finished, monkeypatch):
    """As of a study that excludes such samples."""

    def without_the_second(model, samples, *arguments, **keywords):
        yield from (each for each in projected_gradients(model, samples, *arguments, **keywords) if each[0] != 1)

    monkeypatch.setattr(search, "projected_gradients", without_the_second)
    store = finished.store()
    samples = pl.DataFrame(finished.rows(3))
    found = Searcher(store, store.model_configuration("cpu")).nearest(samples, 1, exact=True)
    assert found.frame["query_id"].to_list() == found.frame["original_id"].to_list() == ["s00", "s02"]
    assert found.provenance.excluded == {"s01": "the query's loss or gradient is not finite"}


@pytest.mark.parametrize(("text", "answer", "what"), [(" ", "b", "text"), ("a", "", "answer")])
def test_empty_words(finished, text, answer, what):
    output = finished.gradsim("query", "tiny", text, "--answer", answer, fails=True)
    assert f"error: the {what} is empty; enter some words" in output
