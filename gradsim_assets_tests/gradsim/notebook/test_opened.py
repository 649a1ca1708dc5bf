"""A stored study as notebooks open it, mostly imported, which needs no model."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from matplotlib.figure import Figure
from polars.testing import assert_frame_equal

import gradsim
from gradsim import notebook as opened
from gradsim.analysis import QUESTIONS
from gradsim.analysis.questions import DOTS, SIZES
from gradsim.errors import StudyError, TableError
from gradsim.notebook import OpenedStudy
from gradsim.queries import query_frame
from gradsim.study import load_study
from gradsim.tables import Store
from gradsim_assets_tests.gradsim.published.tiny import LAYERS, LISTS
from gradsim_assets_tests.studies import two_partitions

PAIRS = sum(len(originals) for originals in LISTS.values())

# Answers that are better read than looked at, and those that a tiny study has no rows for.
NOT_DRAWN = {"method_differences", "controls", "best_similarity", "divergence", "selection_under_budget"}
EMPTY = {"attention_against_mlp", "projection_audit"}


def test_a_study_says_what_it_is(study: OpenedStudy) -> None:
    assert (study.definition.name, study.definition.samples) == ("tiny", 4)
    assert study.settings == ["paraphrased", "model_generated"]
    assert study["model_generated"] is study["model-generated"]
    assert study["model-generated"].name == "model_generated"


def test_what_is_shown_of_a_study(study: OpenedStudy) -> None:
    shown = repr(study).splitlines()
    assert shown[0] == "Study tiny"
    assert "  model      org/model" in shown
    assert "  settings   paraphrased, model_generated" in shown
    assert "  state      report missing" in shown
    assert 'study["paraphrased"], .tables' in shown[-1]


def test_what_is_shown_of_a_setting(study: OpenedStudy, store: Store) -> None:
    """Nothing is computed to be shown."""
    setting = study["paraphrased"]
    assert "accuracy  not computed; materialize it, or run `gradsim run tiny --setting paraphrased`" in repr(setting)
    answer = setting.answer("accuracy")
    store.write(store.lineage.key("accuracy", "paraphrased", "analysis"), answer)
    (row,) = answer.filter(method="full_gradient").iter_rows(named=True)
    expected = "accuracy of full_gradient {accuracy:.4f}, 95 % interval {low:.4f} to {high:.4f}".format(**row)
    for each in (setting, gradsim.open_study("tiny")["paraphrased"]):
        assert expected in " ".join(repr(each).split())


def test_a_damaged_file_is_shown_not_raised(tmp_path: Path) -> None:
    store = Store(tmp_path / "data root", two_partitions(tmp_path))
    study = OpenedStudy(store)
    assert "state      not begun" in repr(study)
    path = store.path(store.lineage.key("queries", "dropped"), "0000-0001")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    assert f"state      unknown: {path}: not a readable table" in repr(study)
    store.path(store.lineage.key("accuracy", "dropped", "analysis")).parent.mkdir(parents=True)
    store.path(store.lineage.key("accuracy", "dropped", "analysis")).write_bytes(path.read_bytes())
    assert "accuracy    not computed; materialize it" in repr(study["dropped"])


def test_descriptions_are_shown_in_jupyter_as_text(study: OpenedStudy) -> None:
    changed = study.definition.model_copy(update={"description": "<script>alert(1)</script> & more"})
    page = OpenedStudy(Store(study.store.root, changed))._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<script" not in page


def test_what_is_shown_of_dots(study: OpenedStudy) -> None:
    dots = study["paraphrased"].layer_dots
    assert f"pairs         {PAIRS}, of {len(LISTS)} queries" in repr(dots)
    assert "layers        3, from embed to head" in repr(dots)
    assert "<td" in dots._repr_html_()


def test_names_that_are_unknown_are_refused_with_those_that_are_known(study: OpenedStudy) -> None:
    with pytest.raises(StudyError, match=r"no setting 'paraphrase'; it has: paraphrased, model_generated"):
        study["paraphrase"]
    with pytest.raises(StudyError, match=r"no question 'accuracies'; there are: accuracy, .*projection_audit"):
        study["paraphrased"].answer("accuracies")
    with pytest.raises(StudyError, match="no question 'dot_products'"):
        study["paraphrased"].figure("dot_products")
    with pytest.raises(TableError, match=r"study 'tiny' has no table 'dot_products'; see `\.tables`"):
        study.scan("dot_products")
    with pytest.raises(TableError, match=r"setting 'paraphrased' has no table 'samples'; see `\.tables`"):
        study["paraphrased"].scan("samples")
    with pytest.raises(StudyError, match="did you mean 'tiny'"):
        gradsim.open_study("tinny")
    with pytest.raises(TableError, match="no_such_layer"):
        study["paraphrased"].value_of(["no_such_layer"], "accuracy")
    with pytest.raises(StudyError, match="no criterion 'speed'; there are: accuracy, similarity"):
        study["paraphrased"].value_of(["embed"], "speed")


def test_tables_of_every_room_are_lazy_frames(study: OpenedStudy, store: Store) -> None:
    setting = study["paraphrased"]
    frames = [study.scan("samples"), setting.scan("dot_products")]
    for name, key in ((SIZES, None), ("accuracy", "paraphrased")):
        rows = study.sizes if key is None else setting.answer(name)
        store.write(store.lineage.key(name, key, "analysis"), rows)
        frames.append((study if key is None else setting).scan(name))
    assert all(isinstance(frame, pl.LazyFrame) for frame in frames)
    samples, dots, sizes, accuracy = (frame.collect() for frame in frames)
    assert samples["id"].to_list() == list(LISTS)
    assert dots.height == PAIRS * len(LAYERS)
    assert sizes["layer"].to_list() == list(LAYERS)
    assert accuracy["method"][0] == "full_gradient"


def test_partitions_are_one_lazy_frame(data_root: Path, tmp_path: Path) -> None:
    """Where tables are not combined yet, all partitions are read; where one is missing, that is said."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    samples = [{"id": name, "messages": turns} for name in "abcd"]
    (tmp_path / "studies/originals.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
    definition = {
        "dataset": {"path": "originals.jsonl"},
        "samples": 4,
        "model": {"reference": {"layers": 1}},
        "settings": {"word_dropout": {"method": "word_dropout"}},
        "partition_size": 2,
    }
    (tmp_path / "studies/mine.yaml").write_text(yaml.safe_dump(definition))
    store = Store(data_root, load_study("mine"))
    rows = query_frame(pl.DataFrame(samples), [turns] * len(samples))
    store.write(store.lineage.key("samples"), rows)
    queries = store.lineage.key("queries", "word_dropout")
    store.write(queries, rows[:2], "0000-0001")
    study = gradsim.open_study("mine")
    assert study.tables.filter(table="queries")["state"].to_list() == ["in part"]
    with pytest.raises(TableError, match="mine/word_dropout/queries 0002-0003 is missing"):
        study["word-dropout"].scan("queries")
    store.write(queries, rows[2:], "0002-0003")
    assert study["word-dropout"].scan("queries").collect()["id"].to_list() == list("abcd")


def test_a_table_that_was_not_computed_is_named(study: OpenedStudy) -> None:
    with pytest.raises(TableError, match=r"tiny/paraphrased/analysis/accuracy is missing in .*`gradsim run "):
        study["paraphrased"].scan("accuracy")


def test_states_of_all_tables(study: OpenedStudy, store: Store) -> None:
    tables = study.tables
    assert tables.columns == ["table", "setting", "room", "description", "state", "path"]
    imported = ["samples", "model", "projections"]
    assert set(tables.filter(pl.col("table").is_in([*imported, *DOTS]))["state"]) == {"fresh"}
    assert set(tables.filter(pl.col("table").is_in(list(QUESTIONS)))["state"]) == {"missing"}
    assert (tables["description"].str.len_chars() > 10).all()
    key = store.lineage.key("accuracy", "paraphrased", "analysis")
    store.write(key, study["paraphrased"].answer("accuracy"))
    row = study.tables.filter(table="accuracy", setting="paraphrased").row(0, named=True)
    assert (row["state"], Path(row["path"])) == ("fresh", store.path(key))


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_is_the_same_before_and_after_it_is_stored(study: OpenedStudy, store: Store, question: str) -> None:
    computed = study["paraphrased"].answer(question)
    assert study["paraphrased"].answer(question) is computed
    store.write(store.lineage.key(SIZES, room="analysis"), study.sizes)
    for name in (*QUESTIONS[question].inputs, question):
        if name in QUESTIONS:
            store.write(store.lineage.key(name, "paraphrased", "analysis"), study["paraphrased"].answer(name))
    again = gradsim.open_study("tiny")
    assert again.tables.filter(table=question, setting="paraphrased")["state"].item() == "fresh"
    assert_frame_equal(again["paraphrased"].answer(question), computed, check_exact=True, categorical_as_str=True)


def test_fresh_answers_are_read_and_stale_ones_computed_again(study: OpenedStudy, store: Store) -> None:
    computed = study["paraphrased"].answer("accuracy")
    marked = computed.with_columns(accuracy=pl.lit(0.125))
    store.write(store.lineage.key("accuracy", "paraphrased", "analysis"), marked)
    assert set(gradsim.open_study("tiny")["paraphrased"].answer("accuracy")["accuracy"]) == {0.125}
    similarity = store.lineage.key("gradient_similarity", "paraphrased", "results")
    store.write(similarity, store.read(similarity).with_columns(-pl.col("similarity")))
    answer = gradsim.open_study("tiny")["paraphrased"].answer("accuracy")
    assert 0.125 not in answer["accuracy"]
    assert answer["accuracy"][0] != computed["accuracy"][0]


def test_all_questions_are_described(study: OpenedStudy) -> None:
    questions = study["paraphrased"].questions
    assert questions["question"].to_list() == list(QUESTIONS)
    assert questions["description"].str.ends_with(".").all()


@pytest.mark.parametrize("question", [name for name in QUESTIONS if name not in NOT_DRAWN | EMPTY])
def test_figures_are_figures(study: OpenedStudy, question: str) -> None:
    assert isinstance(study["model-generated"].figure(question), Figure)


@pytest.mark.parametrize("question", sorted(NOT_DRAWN | EMPTY))
def test_there_may_be_no_figure(study: OpenedStudy, question: str) -> None:
    assert study["paraphrased"].answer(question).is_empty() == (question in EMPTY)
    assert study["paraphrased"].figure(question) is None


def test_a_selection_of_ones_own(study: OpenedStudy) -> None:
    setting = study["paraphrased"]
    value = setting.value_of(["head", "embed"], "similarity")
    assert value["layer"].to_list() == ["head", "embed"]
    assert value["parameters"].to_list() == [10, 40]
    alone = setting.answer("similarity_to_full_gradient").filter(layer="head")["similarity"].item()
    assert value["value"][0] == pytest.approx(alone)
    everything = setting.value_of(LAYERS, "accuracy")
    assert everything["value"][-1] == setting.answer("greedy_by_accuracy")["value"][-1]


def test_selections_in_other_settings_and_studies(study: OpenedStudy) -> None:
    within = study.transfer()
    assert set(within["source_setting"]) == {"paraphrased", "model_generated"}
    between = opened.selection_transfer({"one": study["paraphrased"], "two": study["model_generated"]})
    names = {"one": "paraphrased", "two": "model_generated"}
    renamed = between.with_columns(pl.col("source_setting", "target_setting").replace(names))
    assert_frame_equal(renamed, within)


def test_opening_loads_nothing_heavy(store: Store, project: Path) -> None:
    """Nor does it draw: answers do without matplotlib."""
    code = (
        "import sys, gradsim\n"
        "study = gradsim.open_study('tiny')\n"
        "study['paraphrased'].answer('accuracy')\n"
        "heavy = {'torch', 'transformers', 'datasets', 'dagster', 'matplotlib', 'seaborn'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False)
    assert (said.stdout.strip(), said.returncode) == ("[]", 0), said.stderr
