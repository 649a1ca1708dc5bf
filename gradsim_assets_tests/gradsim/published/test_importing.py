"""Import of published results: atomic, and never replacing computed tables."""

import fcntl
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gradsim.environment import Environment
from gradsim.errors import StudyError, TableError
from gradsim.gradients.projection.dimensions import published_dimension
from gradsim.published import Published, importing, store_published
from gradsim.study import load_study
from gradsim.tables import Store
from gradsim_assets_tests.gradsim.published.tiny import MODEL, Layout


@pytest.fixture
def published(layout: Layout) -> Published:
    layout.write()
    return layout.read()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data root"


def digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder, including hidden ones."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_findings_are_kept_with_the_samples(published: Published, root: Path) -> None:
    imported = store_published(published, root, "study")
    key = imported.store.lineage.key
    assert len(imported.findings) > len(published.findings) > 0
    assert imported.store.provenance(key("samples")).measured == {"findings": list(imported.findings)}
    assert imported.store.provenance(key("model")).measured == {}


class TestTaken:
    def test_an_earlier_import_is_replaced_by_force_only(self, published: Published, root: Path) -> None:
        store_published(published, root, "study")
        before = digests(root)
        with pytest.raises(StudyError, match="imported before; use --force to replace it"):
            store_published(published, root, "study")
        assert digests(root) == before
        (root / "study" / "report.html").touch()
        del published.settings["model_generated"]  # type: ignore[attr-defined]
        store_published(published, root, "study", force=True)
        assert names(root) == ["study"]
        assert names(root / "study") == [
            "model.parquet",
            "paraphrased",
            "projections.parquet",
            "samples.parquet",
            "study.yaml",
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "is not an imported study; choose another name"),
            (
                "dataset: {path: rows.jsonl}\nsamples: 3\nmodel: {name: gpt2}\nsettings: {a: {method: word_dropout}}\n",
                "contains results computed by study 'study'; choose another name",
            ),
            ("dataset: [", r"study.yaml, line \d: not YAML .* - or remove .*/study yourself, or choose another name"),
            ("samples: 3", r"study.yaml: .* - or remove .*/study yourself, or choose another name"),
        ],
    )
    def test_anything_else_never(self, published: Published, root: Path, content: str | None, message: str) -> None:
        (root / "study" / "samples").mkdir(parents=True)
        (root / "study" / "samples" / "0000-0002.parquet").write_text("computed", encoding="utf-8")
        if content is not None:
            (root / "study" / "study.yaml").write_text(content, encoding="utf-8")
        before = digests(root)
        with pytest.raises(StudyError, match=message):
            store_published(published, root, "study", force=True)
        assert digests(root) == before

    def test_what_came_while_it_was_written(
        self, published: Published, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = Store.write

        def slowly(*arguments: object, **named: object) -> object:
            (root / "study").mkdir(exist_ok=True)
            return write(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "write", slowly)
        with pytest.raises(StudyError, match="is not an imported study"):
            store_published(published, root, "study")
        assert names(root) == ["study"]
        assert names(root / "study") == []

    def test_a_link_is_replaced_and_not_followed(self, published: Published, root: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        store_published(published, elsewhere, "study")
        before = digests(elsewhere)
        root.mkdir()
        (root / "study").symlink_to(elsewhere / "study")
        store_published(published, root, "study", force=True)
        assert digests(elsewhere) == before
        assert names(root) == ["study"]
        assert not (root / "study").is_symlink()

    def test_a_link_that_leads_nowhere(self, published: Published, root: Path) -> None:
        root.mkdir()
        (root / "study").symlink_to(root / "nowhere")
        with pytest.raises(StudyError, match="is not an imported study; choose another name"):
            store_published(published, root, "study", force=True)
        assert (root / "study").is_symlink()


class TestAtomic:
    @pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("table", ["samples", "projected_similarity"])
    def test_a_failed_import_leaves_the_earlier_one(
        self, published: Published, root: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, table: str
    ) -> None:
        store_published(published, root, "study")
        before, write = digests(root), Store.write

        def failing(store: Store, key: object, *rest: object, **named: object) -> object:
            if getattr(key, "name", "") == table:
                raise failure
            return write(store, key, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "write", failing)
        with pytest.raises((TableError, KeyboardInterrupt)):
            store_published(published, root, "study", force=True)
        assert digests(root) == before
        assert names(root) == ["study"]

    def test_a_failed_swap_is_undone(self, published: Published, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store_published(published, root, "study")
        before, rename = digests(root), Path.rename

        def failing(path: Path, target: Path) -> Path:
            if target == root / "study" and "replaced" not in path.parts:
                raise OSError(5, "Input/output error")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(TableError, match=r"cannot be written \(Input/output error\)"):
            store_published(published, root, "study", force=True)
        assert digests(root) == before
        assert names(root) == ["study"]

    def test_what_a_killed_import_left_is_removed(self, published: Published, root: Path) -> None:
        left = root / ".study.importing.1-abc" / "study"
        left.mkdir(parents=True)
        (left / "study.yaml").touch()
        other = root / ".studying.importing.1-abc"
        other.mkdir()
        store_published(published, root, "study")
        assert names(root) == [other.name, "study"]

    def test_what_a_killed_swap_took_away_comes_back(self, published: Published, root: Path) -> None:
        store_published(published, root, "study")
        before = digests(root)
        replaced = root / ".study.importing.1-abc" / "replaced"
        replaced.mkdir(parents=True)
        (root / "study").rename(replaced / "study")
        with pytest.raises(StudyError, match="imported before"):
            store_published(published, root, "study")
        assert digests(root) == before

    def test_another_import_at_work_is_left_alone(self, published: Published, root: Path) -> None:
        busy = root / ".study.importing.1-abc"
        busy.mkdir(parents=True)
        held = os.open(busy, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            store_published(published, root, "study")
        finally:
            os.close(held)
        assert names(root) == [busy.name, "study"]

    def test_what_cannot_be_removed_is_told(
        self, published: Published, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(path: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("gradsim.published.hidden.shutil.rmtree", failing)
        with pytest.raises(
            StudyError, match=r"importing\..*: cannot be removed \(Permission denied\); remove it manually"
        ):
            store_published(published, root, "study")

    def test_a_data_root_that_cannot_be_written(self, published: Published, root: Path) -> None:
        root.touch()
        with pytest.raises(TableError, match="cannot be written"):
            store_published(published, root, "study")


def test_names_with_a_dollar_are_names(layout: Layout, root: Path) -> None:
    """Variables are only expanded in hand-written studies."""
    layout.write()
    for folder in ("dot_products/paraphrased", "dot_products/model_generated"):
        (layout.root / "data" / folder / MODEL).rename(layout.root / "data" / folder / "org/$HOME-${NO_SUCH}")
    store_published(layout.read(), root, "study")
    environment = Environment(data=root, studies=root)
    assert load_study("study", environment).model.imported == "org/$HOME-${NO_SUCH}"  # type: ignore[union-attr]


class TestShares:
    """The share of the parameters that a projection keeps, derived from its dimension."""

    def stored(self, layout: Layout, root: Path, dimension: int, size: int) -> importing.Imported:
        layout.tables["projections"] = {str(dimension): layout.tables["projections"]["8"]}
        layout.sizes = dict.fromkeys(layout.sizes, size)
        layout.write()
        return store_published(layout.read(), root, "study")

    def test_one_share(self, single: Layout, root: Path) -> None:
        size = 100_000_000
        imported = self.stored(single, root, published_dimension(0.0123, 3 * size), size)
        rows = imported.store.read(imported.store.lineage.key("projections"))
        assert rows["projector"].to_list() == ["rademacher_1_23pct"] * 3
        assert rows["layer_dimension"].to_list() == [published_dimension(0.0123, size)] * 3
        assert not any("compared with theory" in finding for finding in imported.findings)

    @pytest.mark.parametrize(
        ("dimension", "found"),
        [
            (4096, r"correspond to 18 shares (1.28% to 1.45%) of the 300,000 "),
            (4097, "correspond to no share of the 300,000 "),
        ],
    )
    def test_several_or_none(self, single: Layout, root: Path, dimension: int, found: str) -> None:
        imported = self.stored(single, root, dimension, 100_000)
        assert imported.store.read(imported.store.lineage.key("projections")).is_empty()
        (finding,) = [each for each in imported.findings if "compared with theory" in each]
        assert f"{dimension:,} dimensions {found}" in finding


def test_the_definition_is_of_what_was_read(published: Published, root: Path) -> None:
    store_published(replace(published, sample_size="4"), root, "study")
    content = yaml.safe_load((root / "study/study.yaml").read_text(encoding="utf-8"))
    assert content == {
        "description": "Published results of org/model, imported",
        "dataset": {"imported": published.digest},
        "samples": 4,
        "first_samples": 4,
        "model": {"imported": "org/model"},
        "settings": {name: {"method": "imported"} for name in ("paraphrased", "model_generated")},
    }
