import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from gradsim.errors import StudyError
from gradsim.study import ImportedDataset, Study, load_study
from gradsim.tables import Lineage, TableKey
from gradsim.tables.lineage import ANALYSES, COMBINED_TABLES, GRADIENT_TABLES, IMPORTED_TABLES, PROJECTED_TABLES, SEEDED

MakeStudy = Callable[..., Study]

DROPOUT = {"method": "word_dropout", "every": 7}
HUB: dict[str, Any] = {"hub": "org/data", "where": {"source": "lima"}}
PARAPHRASE = {"method": "paraphrase", "model": "gpt"}


@pytest.fixture
def imported() -> Study:
    """As `gradsim import-published` defines one."""
    return Study.model_validate(
        {
            "name": "published",
            "dataset": {"imported": "1234"},
            "samples": 4,
            "model": {"imported": "org/model"},
            "settings": {"paraphrased": {"method": "imported"}, "other": {"method": "imported"}},
        }
    )


def fingerprints(study: Study) -> dict[str, str]:
    """Every table of a study, without the study's name -> its fingerprint."""
    lineage = Lineage(study)
    return {"/".join(node.key.parts[1:]): lineage.fingerprint(node.key) for node in lineage}


def changed(one: Study, two: Study) -> set[str]:
    """Tables of both studies that are defined differently."""
    before, after = fingerprints(one), fingerprints(two)
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


def below(study: Study, *names: str) -> set[str]:
    """These tables and all that is made from them, found from the nodes' inputs alone."""
    found = set(names)
    for node in Lineage(study):
        if found & {"/".join(source.parts[1:]) for source in node.inputs}:
            found.add("/".join(node.key.parts[1:]))
    return found


class TestOrder:
    def test_inputs_come_before_what_is_made_from_them(self, study: Study) -> None:
        seen: set[TableKey] = set()
        for node in Lineage(study):
            assert set(node.inputs) <= seen, node.key
            seen.add(node.key)

    def test_every_table_is_there_once(self, study: Study) -> None:
        names = list(fingerprints(study))
        per_setting = 3 + len(GRADIENT_TABLES) + len(COMBINED_TABLES) + len(ANALYSES)
        assert len(names) == len(set(names)) == 4 + 2 * per_setting + 2 + 1  # of the study, its analyses, the report
        assert names[:3] == ["samples", "model", "tokenized"]
        assert names[-1] == "report"

    def test_prompts_come_first_wherever_their_setting_stands(self, make_study: MakeStudy) -> None:
        study = make_study(settings={"generated": {"method": "generate", "prompts": "a"}, "a": DROPOUT})
        names = list(fingerprints(study))
        assert names.index("a/queries") < names.index("generated/queries")

    def test_the_report_reads_every_analysis(self, study: Study) -> None:
        lineage = Lineage(study)
        analyses = {node.key for node in lineage if node.key.room == "analysis"}
        assert analyses <= set(lineage[lineage.key("report")].inputs)

    def test_all_follows_from_the_samples(self, study: Study) -> None:
        assert below(study, "samples") == set(fingerprints(study))


# What is changed -> the tables that a change bears on directly; what is made from them changes too, and nothing else.
EVERY_QUERIES = ("paraphrased/queries", "model_generated/queries")
GRADIENTS = tuple(f"{setting}/{table}" for setting in ("paraphrased", "model_generated") for table in GRADIENT_TABLES)
PROJECTED = (
    "projections",
    *(f"{setting}/{table}" for setting in ("paraphrased", "model_generated") for table in PROJECTED_TABLES),
)
TOKENIZED = ("tokenized", "paraphrased/tokenized", "model_generated/tokenized")
DRAWN = (
    *(f"{setting}/analysis/{name}" for setting in ("paraphrased", "model_generated") for name in sorted(SEEDED)),
    "analysis/selection_transfer",
)

CHANGES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "description": ({"description": "another"}, ()),
    "name": ({"name": "another"}, ()),
    "partition_size": ({"partition_size": 3}, ()),
    "samples": ({"samples": 5}, ("samples",)),
    "first_samples": ({"first_samples": 2}, ("samples",)),
    "dataset": ({"dataset": {"hub": "org/data"}}, ("samples",)),
    "architecture": ({"model": {"reference": {"layers": 2}}}, ("model",)),
    "training": ({"model": {"reference": {"layers": 1, "steps": 5}}}, ("model",)),
    "another model": ({"model": {"name": "org/model"}}, ("model",)),
    "precision": (
        {"model": {"reference": {"layers": 1}, "precision": "float64"}},
        (*GRADIENTS, "model_generated/queries"),
    ),
    "attention": (
        {"model": {"reference": {"layers": 1}, "attention": "eager"}},
        (*GRADIENTS, "model_generated/queries"),
    ),
    "precision_of_memorised": (
        {"model": {"reference": {"layers": 1}, "precision_of_memorised": "float64"}},
        GRADIENTS,
    ),
    "loss": ({"chat": {"loss": "sum"}}, GRADIENTS),
    "on_long_sample": ({"on_long_sample": "exclude"}, ("model", *TOKENIZED)),
    "max_length": ({"max_length": 9}, ("model", *TOKENIZED)),
    "truncate": ({"truncate": "left"}, ("model", *TOKENIZED)),
    "no truncation": ({"truncate": "none", "max_length": None}, ()),
    "on_bad_sample": ({"on_bad_sample": "exclude"}, TOKENIZED),
    "top_k": ({"top_k": 3}, ("paraphrased/candidates", "model_generated/candidates")),
    "top_k all": ({"top_k": "all"}, ("paraphrased/candidates", "model_generated/candidates")),
    "bm25_part": ({"bm25_part": "both"}, ("paraphrased/candidates", "model_generated/candidates")),
    "projections": ({"projections": [{"share": 0.05}]}, PROJECTED),
    "one projection more": ({"projections": [{"share": 0.01}, {"share": 0.05}]}, PROJECTED),
    "seed": ({"seed": 1}, ("model", *PROJECTED, *DRAWN)),  # the reference model is trained with it
}


@pytest.mark.parametrize(("changes", "direct"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_bears_on_its_tables_alone(
    make_study: MakeStudy, changes: dict[str, Any], direct: tuple[str, ...]
) -> None:
    assert changed(make_study(), make_study(**changes)) == below(make_study(), *direct)


def test_a_chat_template_bears_on_tokens_and_generated_queries(make_study: MakeStudy, tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages }}", encoding="utf-8")

    def study(**chat: Any) -> Study:
        return make_study(model={"name": "org/model"}, chat=chat)

    reached = below(study(), *TOKENIZED, "model_generated/queries")
    for chat in ({"template": "tulu"}, {"loss_on": "everything"}, {"template": file}):
        assert changed(study(), study(**chat)) == reached
    assert changed(study(), study(template="model")) == set()
    before = fingerprints(study(template=file))
    file.write_text("another", encoding="utf-8")
    assert {key for key, each in fingerprints(study(template=file)).items() if before[key] != each} == reached


def test_a_summed_loss_bears_on_gradients_and_their_index(make_study: MakeStudy) -> None:
    for chat in ({"template": "tulu"}, {"loss_on": "everything"}):
        one, two = (
            make_study(model={"name": "org/model"}, projections=[{"share": 0.01, "store_projected": True}], chat=each)
            for each in (chat, {**chat, "loss": "sum"})
        )
        assert changed(one, two) == below(one, *GRADIENTS, "gradient_index")


def test_projections_reach_so_far(make_study: MakeStudy) -> None:
    """The same in full, so that `below` cannot hide a fault."""
    assert changed(make_study(), make_study(projections=[])) == {
        f"{setting}/{table}"
        for setting in ("paraphrased", "model_generated")
        for table in (
            *(place + table for table in PROJECTED_TABLES for place in ("", "results/")),
            "analysis/accuracy",
            "analysis/method_differences",
            "analysis/retrieval",
            "analysis/best_similarity",
            "analysis/held_out_selection",  # its figure shows projections, too
            "analysis/selection_under_budget",
            "analysis/select_or_project",
            "analysis/projection_audit",
        )
    } | {"projections", "analysis/selection_transfer", "report"}


def test_top_k_reaches_so_far(make_study: MakeStudy) -> None:
    kept = {"samples", "model", "tokenized", "projections", "analysis/parameters_per_layer", *EVERY_QUERIES, *TOKENIZED}
    assert set(fingerprints(make_study())) - changed(make_study(), make_study(top_k=3)) == kept


class TestModelOfTheHub:
    """A model that is not trained here depends on no sample and on no seed."""

    @pytest.mark.parametrize("values", [{"gguf": ("a.gguf", "b.gguf")}, {"quantization": ("nf4", "int8")}])
    def test_form_of_the_weights(self, make_study: MakeStudy, values: dict[str, tuple[str, str]]) -> None:
        ((key, kinds),) = values.items()
        one, two = (make_study(model={"name": "org/model", key: kind}) for kind in kinds)
        assert changed(one, two) == below(one, "model")

    @pytest.mark.parametrize("key", ["gguf", "quantization"])
    def test_keys_left_out_keep_the_fingerprints_that_there_were_before(self, make_study: MakeStudy, key: str) -> None:
        study = make_study(model={"name": "org/model"}, settings={"paraphrased": {"method": "local", "model": "a"}})
        assert all(key not in section.model_dump() for section in (study.model, study.settings["paraphrased"]))

    def test_revision(self, make_study: MakeStudy) -> None:
        one, two = (make_study(model={"name": "org/model", "revision": each}) for each in (None, "main"))
        assert changed(one, two) == below(one, "model")

    def test_seed(self, make_study: MakeStudy) -> None:
        one, two = (make_study(model={"name": "org/model"}, seed=seed) for seed in (1, 2))
        tables = [name for name in PROJECTED if name != "projections"]
        assert changed(one, two) == below(one, *tables, *DRAWN)

    def test_samples(self, make_study: MakeStudy) -> None:
        one, two = (make_study(model={"name": "org/model"}, samples=samples) for samples in (4, 5))
        assert changed(one, two) == below(one, "samples")
        assert not {"model", "analysis/parameters_per_layer"} & changed(one, two)


class TestSettings:
    def settings(self, make_study: MakeStudy, **settings: dict[str, Any]) -> Study:
        return make_study(settings={"a": DROPOUT, **settings})

    def test_a_further_setting_changes_only_what_all_settings_are_in(self, make_study: MakeStudy) -> None:
        one, two = self.settings(make_study), self.settings(make_study, b=DROPOUT)
        assert changed(one, two) == {"analysis/selection_transfer", "report"}

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            (DROPOUT, {**DROPOUT, "every": 5}),
            (PARAPHRASE, {**PARAPHRASE, "model": "other"}),
            (PARAPHRASE, {**PARAPHRASE, "temperature": 0.5}),
            (DROPOUT, PARAPHRASE),
        ],
    )
    def test_what_makes_queries(self, make_study: MakeStudy, one: dict[str, Any], two: dict[str, Any]) -> None:
        before, after = (self.settings(make_study, b=setting) for setting in (one, two))
        assert changed(before, after) == below(before, "b/queries")

    def test_how_fast_they_are_made_does_not_matter(self, make_study: MakeStudy) -> None:
        one, two = (self.settings(make_study, b={**PARAPHRASE, "concurrency": each}) for each in (1, 16))
        assert changed(one, two) == set()

    def test_paraphrases_are_made_with_the_seed(self, make_study: MakeStudy) -> None:
        settings = {"a": PARAPHRASE, "b": DROPOUT}
        one, two = (make_study(model={"name": "org/model"}, settings=settings, seed=each) for each in (1, 2))
        assert changed(one, two) >= {"a/queries", "a/dot_products"}
        assert not changed(one, two) & {"b/queries", "b/dot_products"}

    def test_the_length_of_answers(self, make_study: MakeStudy) -> None:
        one, two = (
            self.settings(make_study, b={"method": "generate", "prompts": "a", **each})
            for each in ({}, {"max_new_tokens": 9})
        )
        assert changed(one, two) == below(one, "b/queries")


class TestImported:
    """Published results: tables that nothing makes, and what can be said of them without a model."""

    def test_tables(self, imported: Study) -> None:
        nodes = {"/".join(node.key.parts[1:]): node for node in Lineage(imported)}
        given = {name for name, node in nodes.items() if node.imported}
        assert given == {
            "samples",
            "model",
            "projections",
            *(f"{setting}/results/{table}" for setting in ("paraphrased", "other") for table in IMPORTED_TABLES),
        }
        assert not any(nodes[name].inputs for name in given)
        assert set(nodes) - given == {
            "analysis/parameters_per_layer",
            "analysis/selection_transfer",
            "report",
            *(
                f"{setting}/analysis/{name}"
                for setting in ("paraphrased", "other")
                for name in ANALYSES
                if name != "gradient_audit"
            ),
        }

    def test_what_reads_tokens_does_without(self, imported: Study) -> None:
        assert list(Lineage(imported).analysis_inputs("controls", "other")) == ["gradient_similarity"]

    def test_other_results_make_everything_another(self, imported: Study) -> None:
        other = imported.model_copy(update={"dataset": ImportedDataset(imported="5678")})
        assert changed(imported, other) == set(fingerprints(imported))


class TestDatasetLayout:
    """Keys that a study does not set change no fingerprint, also of studies from before there were these keys."""

    def test_fingerprints_from_before(self, project: Path, make_study: MakeStudy) -> None:
        text = json.dumps(fingerprints(load_study(project / "studies/sample.yaml")), sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == "f0922d51d9b84eef"
        hub = make_study(dataset={**HUB, "single_turn": True}, settings={"d": DROPOUT})
        parameters = {"hub": "org/data", "split": "train", "revision": None, "where": {"source": "lima"}}
        assert Lineage(hub)._plain(hub.dataset) == parameters

    @pytest.mark.parametrize(
        "key", [{"format": "messages"}, {"columns": {"messages": "chat"}}, {"single_turn": True}, {"subset": "main"}]
    )
    def test_a_key_that_is_set(self, make_study: MakeStudy, tmp_path: Path, key: dict[str, Any]) -> None:
        sections: list[dict[str, Any]] = (
            [HUB] if "subset" in key else [HUB, {"path": str(tmp_path / "originals.jsonl")}]
        )
        for dataset in sections:
            study = make_study(dataset=dataset)
            assert changed(study, make_study(dataset={**dataset, **key})) == below(study, "samples")


class TestFiles:
    """A file stands for what it contains, not for where it lies."""

    def test_moving_the_data_changes_nothing(self, make_study: MakeStudy, tmp_path: Path) -> None:
        study = make_study()
        before = fingerprints(study)
        for name in ("originals.jsonl", "queries.jsonl"):
            (tmp_path / "elsewhere").mkdir(exist_ok=True)
            (tmp_path / name).rename(tmp_path / "elsewhere" / name)
        moved = study.model_copy(
            update={
                "dataset": study.dataset.model_copy(update={"path": tmp_path / "elsewhere/originals.jsonl"}),
                "settings": {
                    **study.settings,
                    "paraphrased": study.settings["paraphrased"].model_copy(
                        update={"path": tmp_path / "elsewhere/queries.jsonl"}
                    ),
                },
            }
        )
        assert fingerprints(moved) == before

    @pytest.mark.parametrize(
        ("file", "table"), [("originals.jsonl", "samples"), ("queries.jsonl", "paraphrased/queries")]
    )
    def test_editing_the_data(self, study: Study, tmp_path: Path, file: str, table: str) -> None:
        before = fingerprints(study)
        with (tmp_path / file).open("a") as data:
            data.write("\n")
        after = fingerprints(study)
        assert {name for name in before if before[name] != after[name]} == below(study, table)

    def test_a_folder_that_is_saved_again(self, make_study: MakeStudy, tmp_path: Path) -> None:
        def with_data(answer: str) -> Study:
            datasets.Dataset.from_dict({"prompt": ["p"], "completion": [answer]}).save_to_disk(tmp_path / answer)
            shutil.copytree(tmp_path / answer, tmp_path / "saved", dirs_exist_ok=True)
            return make_study(dataset={"path": str(tmp_path / "saved")})

        first, again, other = (fingerprints(with_data(answer)) for answer in ("one", "one", "two"))
        assert first == again
        assert first != other

    def test_the_tokenizer_of_a_reference_model(self, make_study: MakeStudy, tmp_path: Path) -> None:
        def with_tokenizer(folder: str) -> Study:
            return make_study(model={"reference": {"layers": 1, "tokenizer": tmp_path / folder}})

        (tmp_path / "one").mkdir()
        (tmp_path / "one/tokenizer.json").write_text("{}")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        study = make_study()
        assert changed(study, with_tokenizer("one")) == below(study, "model")
        assert changed(with_tokenizer("one"), with_tokenizer("two")) == set()
        before = fingerprints(with_tokenizer("two"))
        (tmp_path / "two/tokenizer.json").write_text("[]")
        assert fingerprints(with_tokenizer("two"))["model"] != before["model"]

    def test_a_file_that_is_not_there(self, study: Study, tmp_path: Path) -> None:
        (tmp_path / "queries.jsonl").unlink()
        lineage = Lineage(study)
        assert lineage.fingerprint(lineage.key("samples"))
        with pytest.raises(StudyError) as caught:
            lineage.fingerprint(lineage.key("queries", "paraphrased"))
        reason = "cannot be read (No such file or directory); correct the path in the study file"
        assert str(caught.value) == f"{tmp_path / 'queries.jsonl'}: {reason}"


@pytest.mark.slow
def test_fingerprints_are_the_same_in_another_process(study: Study) -> None:
    code = (
        "import sys; from gradsim.study import Study; from gradsim.tables import Lineage;"
        "lineage = Lineage(Study.model_validate_json(sys.stdin.read()));"
        "print(*[lineage.fingerprint(node.key) for node in lineage], sep='\\n')"
    )
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", code],
            input=study.model_dump_json(),
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert printed.stdout.split() == list(fingerprints(study).values())
