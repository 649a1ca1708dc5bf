"""`gradsim query`: the originals nearest to a text, from the stored index, by the real command."""

import re
import shutil

import pytest

from gradsim.partition_job.search import Searcher
from gradsim.tables import State
from gradsim.tables.index import IndexFile

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
    import polars as pl

    store = finished.store()
    searcher = Searcher(store.study, store.index(), store.model_configuration("cpu"))
    queries = store.read(store.lineage.key("queries", "word_dropout"))
    row = queries.row(3, named=True)
    nearest = searcher.nearest(*(message["content"] for message in row["messages"]))
    stored = store.read(store.lineage.key("projected_similarity", "word_dropout", "results"))
    expected = stored.filter(pl.col("query_id") == row["id"]).with_columns(pl.col("original_id").cast(pl.String))
    both = expected.join(nearest, on="original_id", suffix="_found")
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


@pytest.mark.parametrize(("text", "answer", "what"), [(" ", "b", "text"), ("a", "", "answer")])
def test_empty_words(finished, text, answer, what):
    output = finished.gradsim("query", "tiny", text, "--answer", answer, fails=True)
    assert f"error: the {what} is empty; enter some words" in output
