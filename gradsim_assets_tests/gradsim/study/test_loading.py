import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError
from gradsim.study import FileDataset, HubModel, ImportedModel, ReferenceModel, load_studies, load_study
from gradsim.study.loading import study_names
from gradsim.study.settings import QueryFile
from gradsim.tables import Lineage, Store

WriteStudy = Callable[..., Path]


def error_of(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(StudyError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def loaded() -> tuple[list[str], dict[str, str]]:
    """The names of all studies, and the errors of the others."""
    studies, faults = load_studies()
    return [study.name for study in studies], {name: str(error) for name, error in faults.items()}


class TestShipped:
    def test_both_studies_load(self, root: Path, project: Path) -> None:
        shutil.copytree(project / "studies", root / "studies", dirs_exist_ok=True)
        studies = {study.name: study for study in load_studies()[0]}
        assert list(studies) == ["lima_olmo_1b", "sample", "smollm2_135m"]
        assert (studies["sample"].samples, studies["lima_olmo_1b"].samples) == (60, 988)
        assert [partition.key for partition in studies["sample"].partitions] == ["0000-0019", "0020-0039", "0040-0059"]
        assert studies["lima_olmo_1b"].partitions[-1].key == "0900-0987"

    def test_the_files_that_sample_names_are_there(self, project: Path) -> None:
        study = load_study(project / "studies/sample.yaml", Environment())
        queries = study.settings["paraphrased"]
        assert isinstance(study.dataset, FileDataset)
        assert isinstance(queries, QueryFile)
        assert study.dataset.path.is_file()
        assert queries.path.is_file()


class TestFiles:
    def test_a_missing_file(self, root: Path) -> None:
        path = root / "studies/mine.yaml"
        assert error_of(load_study, path) == f"{path}: no such study file; check the name or create it"

    def test_a_folder(self, root: Path) -> None:
        path = root / "studies/mine.yaml"
        path.mkdir()
        assert error_of(load_study, path) == f"{path}: cannot be read (Is a directory); make it a readable file"

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("samples: [1\nb: 2", ", line 2: not YAML (expected ',' or ']', but got ':'); correct its syntax"),
            (
                "a:\n\tb: 1",
                ", line 2: not YAML (found character '\\t' that cannot start any token); correct its syntax",
            ),
            ("a: \x01", ": not YAML (special characters are not allowed); correct its syntax"),
            ("samples: 1\nseed: 2\nsamples: 2", ", line 3: key 'samples' is a duplicate; remove it"),
            ("a:\n- b: 1\n  b: 2", ", line 3: key 'b' is a duplicate; remove it"),
            ("- 1", ": not a mapping of keys to values; see studies/sample.yaml for one"),
            ("", ": not a mapping of keys to values; see studies/sample.yaml for one"),
        ],
    )
    def test_what_is_not_a_study(self, root: Path, text: str, complaint: str) -> None:
        path = root / "studies/mine.yaml"
        path.write_text(text, encoding="utf-8")
        assert error_of(load_study, path) == f"{path}{complaint}"

    def test_not_text(self, root: Path) -> None:
        path = root / "studies/mine.yaml"
        path.write_bytes(b"samples: \xff\xfe")
        assert error_of(load_study, path) == f"{path}: not UTF-8 text; save it as such"

    def test_a_name_that_no_asset_can_bear(self, write_study: WriteStudy) -> None:
        path = write_study("my-study")
        complaint = "'my-study' is not a valid study name; use letters, digits and underscores"
        assert error_of(load_study, "my-study") == f"{path}: {complaint}"

    def test_variables_are_replaced(self, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_DATA", "/data/with $HOME and spaces")
        path = write_study(dataset={"path": "${MY_DATA}/a.jsonl"}, description="$MY_DATA costs $5")
        study = load_study(path)
        assert isinstance(study.dataset, FileDataset)
        assert study.dataset.path == Path("/data/with $HOME and spaces/a.jsonl")
        assert study.description == "/data/with $HOME and spaces costs $5"

    @pytest.mark.parametrize("text", ["$NOT_SET/a.jsonl", "${NOT_SET}/a.jsonl"])
    def test_a_variable_that_is_not_set(self, write_study: WriteStudy, text: str) -> None:
        path = write_study(dataset={"path": text})
        assert error_of(load_study, path) == f"{path}: '{text}' needs the environment variable NOT_SET; set it"


class TestNames:
    def test_by_name(self, write_study: WriteStudy) -> None:
        write_study("mine")
        assert load_study("mine").name == "mine"

    def test_a_slip(self, root: Path, write_study: WriteStudy) -> None:
        write_study("sample")
        write_study("other")
        where = f"in {root / 'studies'}"
        assert error_of(load_study, "smaple") == f"no study 'smaple' {where}; did you mean 'sample'?"
        assert error_of(load_study, "xyz") == f"no study 'xyz' {where}; there are: other, sample"

    def test_an_empty_folder(self, root: Path) -> None:
        assert error_of(load_study, "mine") == f"no study 'mine' in {root / 'studies'}; there are: none"
        assert load_studies() == ([], {})

    def test_no_folder(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRADSIM_STUDIES", "elsewhere")
        complaint = f"{root / 'elsewhere'}: no such studies folder; create it or set GRADSIM_STUDIES"
        assert error_of(load_study, "mine") == complaint
        assert error_of(load_studies) == complaint

    def test_one_name_twice(self, root: Path, write_study: WriteStudy) -> None:
        path = write_study("mine")
        path.with_suffix(".yml").write_text(path.read_text())
        complaint = f"{root / 'studies/mine.yml'}: conflicts with mine.yaml; rename one file"
        assert error_of(load_study, "mine") == complaint
        write_study("other")
        assert load_study("other").name == "other"
        assert loaded() == (["other"], {"mine": complaint})

    def test_a_trial_that_is_called_like_another_study(
        self, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_study("mine", samples=6)
        path = write_study("mine_5", samples=5)
        monkeypatch.setenv("MT_SAMPLE_SIZE", "5")
        assert loaded() == (["mine_5"], {"mine_5": f"{path}: there is another study named 'mine_5'; rename one file"})

    def test_one_that_is_not_valid_hinders_no_other(self, root: Path, write_study: WriteStudy) -> None:
        write_study("a")
        write_study("c")
        (root / "studies/b.yaml").write_text("samples: [")
        assert loaded() == (["a", "c"], {"b": error_of(load_study, "b")})
        assert load_study("c").name == "c"


class TestTrials:
    """`MT_SAMPLE_SIZE` and `MT_MODEL_NAME` make another study, with names and files of its own."""

    @pytest.fixture(autouse=True)
    def _study(self, write_study: WriteStudy) -> None:
        write_study("mine", model={"name": "org/first", "precision": "float64"}, partition_size=20)

    def test_fewer_samples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MT_SAMPLE_SIZE", "25")
        study = load_study("mine")
        assert (study.name, study.samples, study.first_samples, study.size) == ("mine_25", 60, 25, 25)
        assert [partition.key for partition in study.partitions] == ["0000-0019", "0020-0024"]
        assert load_study("mine_25") == study  # the name that its tables bear

    @pytest.mark.parametrize("size", ["60", "61", "1000000"])
    def test_all_samples_or_more_change_nothing(self, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
        full = load_study("mine")
        monkeypatch.setenv("MT_SAMPLE_SIZE", size)
        assert load_study("mine") == full

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("org/Tiny-Model.v1", "mine_tiny_model_v1"),
            ("/models/My Möbius/", "mine_my_m_bius"),
        ],
    )
    def test_another_model(self, monkeypatch: pytest.MonkeyPatch, model: str, name: str) -> None:
        monkeypatch.setenv("MT_MODEL_NAME", model)
        study = load_study("mine")
        assert (study.name, study.model) == (name, HubModel(name=model, precision="float64"))
        assert type(study).model_validate_json(study.model_dump_json()) == study

    def test_the_same_model_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        full = load_study("mine")
        monkeypatch.setenv("MT_MODEL_NAME", "org/first")
        assert load_study("mine") == full

    def test_a_model_in_the_place_of_a_reference_model(
        self, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert isinstance(load_study(write_study("trained")).model, ReferenceModel)
        monkeypatch.setenv("MT_MODEL_NAME", "org/other")
        assert load_study("trained").model == HubModel(name="org/other")

    def test_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MT_MODEL_NAME", "org/other")
        monkeypatch.setenv("MT_SAMPLE_SIZE", "5")
        assert load_study("mine").name == "mine_other_5"
        assert load_study("mine_other_5").name == "mine_other_5"

    def test_no_file_is_shared(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def files() -> set[Path]:
            study = load_study("mine")
            store = Store(tmp_path, study)
            return {store.path(node.key, p) for node in Lineage(study) for p in store.partitions(node.key)}

        full = files()
        monkeypatch.setenv("MT_SAMPLE_SIZE", "25")
        fewer = files()
        monkeypatch.setenv("MT_MODEL_NAME", "org/other")
        both = files()
        assert full.isdisjoint(fewer)
        assert full.isdisjoint(both)
        assert fewer.isdisjoint(both)


IMPORTED = {
    "dataset": {"imported": "1234"},
    "samples": 4,
    "model": {"imported": "org/$ome-model"},
    "settings": {"paraphrased": {"method": "imported"}},
}


class TestImported:
    """Definitions that lie with their tables, below the data root."""

    @pytest.fixture
    def data(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("GRADSIM_DATA", str(root / "data root"))
        return root / "data root"

    def write(self, data: Path, folder: str, content: dict[str, object] | str = IMPORTED) -> None:
        (data / folder).mkdir(parents=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (data / folder / "study.yaml").write_text(text, encoding="utf-8")

    def test_is_found_by_the_name_of_its_folder(self, data: Path, write_study: WriteStudy) -> None:
        write_study("mine")
        self.write(data, "published")
        assert load_study("published").imported
        model = load_study("published").model
        assert isinstance(model, ImportedModel)
        assert model.imported == "org/$ome-model", "nothing in it is a variable"
        assert [study.name for study in load_studies()[0]] == ["mine", "published"]

    def test_is_no_trial(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(data, "published")
        monkeypatch.setenv("MT_SAMPLE_SIZE", "2")
        monkeypatch.setenv("MT_MODEL_NAME", "org/other")
        assert load_study("published").name == "published"

    def test_copies_and_other_files_are_nobodys_studies(self, data: Path, write_study: WriteStudy) -> None:
        computed = yaml.safe_load(write_study("mine").read_text())
        self.write(data, "published")
        for folder, content in (
            ("published.bak", IMPORTED),
            ("published copy", IMPORTED),
            ("backup", computed),
        ):
            self.write(data, folder, content)
        (data / "folder" / "study.yaml").mkdir(parents=True)
        assert [study.name for study in load_studies()[0]] == ["mine", "published"]

    def test_one_that_cannot_be_followed_hinders_no_other(self, data: Path, write_study: WriteStudy) -> None:
        write_study("mine")
        self.write(data, "broken", "dataset: {imported: [")
        self.write(data, "published")
        assert loaded() == (["mine", "published"], {"broken": error_of(load_study, "broken")})
        assert "broken/study.yaml, line 1: not YAML" in error_of(load_study, "broken")

    def test_a_trial_does_not_put_its_tables_among_imported_ones(
        self, data: Path, write_study: WriteStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_study("mine")
        self.write(data, "mine_2")
        monkeypatch.setenv("MT_SAMPLE_SIZE", "2")
        with pytest.raises(StudyError, match=r"mine_2: contains an imported study, but study 'mine_2' stores"):
            load_study("mine")
        names, faults = loaded()
        assert names == ["mine_2"]
        assert "there is another study named 'mine_2'; rename the other study's file" in faults["mine_2"]
        assert study_names(read_environment()) == {"mine", "mine_2"}
