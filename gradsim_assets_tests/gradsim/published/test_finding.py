"""Search for files, and the messages about ambiguous, invalid or skipped ones."""

import shutil
from pathlib import Path

import pytest

from gradsim.errors import StudyError, TableError
from gradsim.published import find_published
from gradsim_assets_tests.gradsim.published.tiny import MODEL, Layout


@pytest.mark.parametrize("below", ["", "data"])
def test_the_folder_or_its_parent_is_given(layout: Layout, below: str) -> None:
    layout.write()
    files = find_published(layout.root / below)
    assert (files.folder, files.model, files.sample_size) == (layout.root / "data", MODEL, "full")
    assert files.parameters == layout.root / "results/parameters_per_layer/org/model/values.json"
    assert files.findings == ()


def test_settings_stand_in_a_fixed_order(layout: Layout) -> None:
    layout.settings = dict.fromkeys(("b", "a", "model_generated", "paraphrased"), layout.settings["paraphrased"])
    layout.write()
    assert list(find_published(layout.root).settings) == ["paraphrased", "model_generated", "a", "b"]
    assert list(find_published(layout.root, settings=["b", "paraphrased"]).settings) == ["paraphrased", "b"]


def test_a_model_without_an_organisation(layout: Layout) -> None:
    layout.write()
    for folder in ("dot_products/paraphrased", "dot_products/model_generated"):
        (layout.root / "data" / folder / "org/model").rename(layout.root / "data" / folder / "gpt2")
    assert find_published(layout.root).model == "gpt2"


def test_projections_may_lie_in_a_folder_of_their_own(single: Layout) -> None:
    single.write()
    (single.root / "data/gradient_similarity/random_projection").rename(single.root / "data/random_projection")
    published = single.read()
    assert "projected_similarity" in published.settings["paraphrased"]


def test_projections_in_two_places_are_refused(single: Layout) -> None:
    single.write()
    shutil.copytree(single.root / "data/gradient_similarity/random_projection", single.root / "data/random_projection")
    with pytest.raises(TableError, match="both contain projections for 'paraphrased'; remove"):
        find_published(single.root)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "nowhere: no such folder; pass the folder that contains dot_products/"),
        ("data/dot_products", r"is inside dot_products/; pass the folder that contains it: .*published/data$"),
        ("data/dot_products/paraphrased/org", r"pass the folder that contains it: .*published/data$"),
        ("results", "neither dot_products/ nor data/dot_products/, but parameters_per_layer; pass"),
    ],
)
def test_a_wrong_folder(layout: Layout, given: str, message: str) -> None:
    layout.write()
    with pytest.raises(StudyError, match=message):
        find_published(layout.root / given)


def test_a_folder_without_results(tmp_path: Path) -> None:
    (tmp_path / "dot_products/paraphrased/org/model/sample_size/full").mkdir(parents=True)
    with pytest.raises(StudyError, match="dot_products: contains no <setting>/<model>/sample_size/<size>/"):
        find_published(tmp_path)


def test_of_several_models_one_must_be_named(layout: Layout) -> None:
    layout.write()
    folder = layout.root / "data/dot_products/paraphrased"
    shutil.copytree(folder / MODEL, folder / "org/other")
    with pytest.raises(StudyError, match="more than one model: org/model, org/other; choose one with --model"):
        find_published(layout.root)
    with pytest.raises(StudyError, match="no results for model 'third'; it has org/model, org/other"):
        find_published(layout.root, model="third")
    assert list(find_published(layout.root, model=MODEL).settings) == ["paraphrased", "model_generated"]
    other = find_published(layout.root, model="org/other")
    assert list(other.settings) == ["paraphrased"]
    assert other.findings == ("Setting model_generated was skipped: it only has model org/model.",)
    assert other.parameters is None


def test_of_several_sample_sizes_full_is_taken_or_one_named(layout: Layout) -> None:
    layout.write()
    sizes = layout.whole("dot_products").parents[1]
    shutil.copytree(sizes / "full", sizes / "3")
    shutil.copytree(sizes / "full", sizes / "4")
    assert find_published(layout.root).sample_size == "full"
    three = find_published(layout.root, sample_size="3")
    assert (three.sample_size, list(three.settings)) == ("3", ["paraphrased"])
    assert three.findings == ("Setting model_generated was skipped: it only has sample size full.",)
    with pytest.raises(StudyError, match="setting 'model_generated' has no results for org/model with sample size 3"):
        find_published(layout.root, sample_size="3", settings=["model_generated", "paraphrased"])
    shutil.rmtree(sizes / "full")
    shutil.rmtree(layout.whole("dot_products", "model_generated").parents[1])
    with pytest.raises(StudyError, match="more than one sample size: 3, 4; choose one with --sample-size"):
        find_published(layout.root)
    with pytest.raises(StudyError, match="no results for sample size '5'; it has 3, 4"):
        find_published(layout.root, sample_size="5")


def test_an_unknown_setting(layout: Layout) -> None:
    layout.write()
    with pytest.raises(StudyError, match="no setting 'other'; it has model_generated, paraphrased"):
        find_published(layout.root, settings=["other"])


def test_a_setting_that_lacks_a_table(layout: Layout) -> None:
    layout.write()
    layout.whole("query_self", "model_generated").unlink()
    with pytest.raises(TableError, match=r"full: lacks paraphrased_dot_products.json, whole and in parts; add what"):
        find_published(layout.root)
    assert list(find_published(layout.root, settings=["paraphrased"]).settings) == ["paraphrased"]


def test_files_that_no_table_is_named_as_are_told(single: Layout) -> None:
    single.write()
    copy = single.whole("dot_products").with_name("dot_products (1).json")
    shutil.copyfile(single.whole("dot_products"), copy)
    (finding,) = find_published(single.root).findings
    assert finding == f"Setting paraphrased: skipped files with unknown names in {copy.parent}: {copy.name}."


def test_gradient_similarities_of_other_sizes_are_told(layout: Layout) -> None:
    layout.write()
    folder = layout.root / "data/gradient_similarity/model_generated" / MODEL
    folder.mkdir(parents=True)
    for name in ("sample_size_100.json", "sample_size_3_part_0_2.json"):
        (folder / name).touch()
    published = layout.read()
    assert "gradient_similarity" not in published.settings["model_generated"]
    assert published.findings == (
        "Setting model_generated: no gradient similarities for this sample size (only for 100, 3); they will be "
        "computed from the dot products.",
    )


@pytest.mark.parametrize("name", ["para-phrased", "v.2", "results", "é"])
def test_a_setting_that_no_study_can_have(layout: Layout, name: str) -> None:
    layout.settings[name] = layout.settings.pop("model_generated")
    layout.write()
    message = f"'{name}' is not a valid setting name: .*; rename its folders, or select the other settings"
    with pytest.raises(StudyError, match=message):
        find_published(layout.root)
    with pytest.raises(StudyError, match=message):
        find_published(layout.root, settings=[name])
    assert list(find_published(layout.root, settings=["paraphrased"]).settings) == ["paraphrased"]


def test_a_setting_is_named_exactly_or_with_other_dashes(layout: Layout) -> None:
    layout.write()
    for name in ("model-generated", "model_generated"):
        assert list(find_published(layout.root, settings=[name]).settings) == ["model_generated"]
    with pytest.raises(StudyError, match="no setting 'para-phrased'; it has model_generated, paraphrased"):
        find_published(layout.root, settings=["para-phrased"])
    data = layout.root / "data/dot_products"
    shutil.copytree(data / "model_generated", data / "model-generated")
    with pytest.raises(StudyError, match="'model-generated' is not a valid setting name"):
        find_published(layout.root, settings=["model-generated"])


class TestSampleSizes:
    """Sample sizes that are neither `full` nor a number."""

    def test_beside_others(self, layout: Layout) -> None:
        layout.write()
        sizes = layout.whole("dot_products").parents[1]
        shutil.copytree(sizes / "full", sizes / "full (copy)")
        files = find_published(layout.root)
        assert files.sample_size == "full"
        assert files.findings == (
            "Setting paraphrased: sample size 'full (copy)' was skipped: it is neither full nor a number.",
        )

    def test_alone_in_a_setting(self, layout: Layout) -> None:
        layout.write()
        sizes = layout.whole("dot_products", "model_generated").parents[1]
        (sizes / "full").rename(sizes / "half")
        assert find_published(layout.root).findings == (
            "Setting model_generated was skipped: it only has sample size half.",
        )

    def test_alone(self, single: Layout) -> None:
        single.write()
        sizes = single.whole("dot_products").parents[1]
        (sizes / "full").rename(sizes / "007")
        with pytest.raises(
            StudyError, match="org/model only has sample size '007', which is neither full nor a number; rename"
        ):
            find_published(single.root)


class TestMisnamedCosines:
    @pytest.mark.parametrize("table", ["gradient_similarity", "projections"])
    def test_are_told(self, single: Layout, table: str) -> None:
        single.write()
        path = single.whole(table)
        path.rename(path.with_name("sample_size_full (1).json"))
        (path.parent / "sample_size_3.json").touch()
        findings = single.read().findings
        assert findings[0] == (
            f"Setting paraphrased: skipped files with unknown names in {path.parent}: sample_size_full (1).json."
        )
        if table == "gradient_similarity":
            assert "no gradient similarities for this sample size (only for 3); they will" in findings[1]

    def test_are_told_beside_good_ones(self, single: Layout) -> None:
        single.write()
        path = single.whole("gradient_similarity")
        (path.parent / "sample_size_full_part_0.json").touch()
        (finding,) = find_published(single.root).findings
        assert finding.endswith(f"skipped files with unknown names in {path.parent}: sample_size_full_part_0.json.")


class TestLinks:
    @pytest.mark.parametrize("depth", range(4))
    def test_are_followed(self, layout: Layout, tmp_path: Path, depth: int) -> None:
        """Replace the folder of the setting, organisation, model or sample sizes by a link."""
        layout.write()
        plain = layout.read()
        linked = layout.root / "data/dot_products/model_generated"
        linked = linked.joinpath(*("org", "model", "sample_size")[:depth])
        linked.rename(tmp_path / "elsewhere")
        linked.symlink_to(tmp_path / "elsewhere")
        files = find_published(layout.root)
        assert list(files.settings) == ["paraphrased", "model_generated"]
        assert files.findings == ()
        assert layout.read().ids == plain.ids

    def test_that_lead_back_are_told(self, single: Layout) -> None:
        single.write()
        link = single.root / "data/dot_products/paraphrased/org/again"
        link.symlink_to(single.root / "data/dot_products")
        files = find_published(single.root)
        assert (files.model, list(files.settings)) == (MODEL, ["paraphrased"])
        assert files.findings == (f"{link} links back to a folder above it and was skipped.",)

    def test_that_lead_nowhere_are_told(self, single: Layout) -> None:
        single.write()
        link = single.root / "data/dot_products/model_generated"
        link.symlink_to(single.root / "nowhere")
        assert find_published(single.root).findings == (f"{link} is a broken link and was skipped.",)

    def test_a_setting_of_two_names_is_read_once(self, single: Layout) -> None:
        single.write()
        dots = single.root / "data/dot_products"
        (dots / "a_copy").symlink_to(dots / "paraphrased")
        files = find_published(single.root)
        assert list(files.settings) == ["paraphrased"]
        rest = f"{MODEL}/sample_size/full"
        finding = f"{dots}/a_copy/{rest} and {dots}/paraphrased/{rest} are the same folder; it was read once."
        assert files.findings == (finding,)
        assert list(find_published(single.root, settings=["a_copy"]).settings) == ["a_copy"]

    def test_a_model_of_two_names_is_read_once(self, single: Layout) -> None:
        single.write()
        models = single.root / "data/dot_products/paraphrased/org"
        (models / "a-copy").symlink_to(models / "model")
        files = find_published(single.root)
        assert files.model == MODEL
        assert len(files.findings) == 1
        assert find_published(single.root, model="org/a-copy").model == "org/a-copy"

    def test_a_sample_size_of_two_names_is_read_once(self, single: Layout) -> None:
        single.write()
        sizes = single.whole("dot_products").parents[1]
        (sizes / "full").rename(sizes / "4")
        (sizes / "full").symlink_to("4")
        assert find_published(single.root).sample_size == "full"
        assert len(find_published(single.root).findings) == 1
        assert find_published(single.root, sample_size="4").sample_size == "4"

    def test_that_give_a_folder_a_name_that_can_be_read(self, single: Layout) -> None:
        single.write()
        dots, sizes = single.root / "data/dot_products", single.whole("dot_products").parents[1]
        (sizes / "full").rename(sizes / "half")
        (sizes / "4").symlink_to("half")
        (dots / "paraphrased").rename(dots / "para-phrased")
        (dots / "paraphrased").symlink_to("para-phrased")
        files = find_published(single.root)
        assert (files.sample_size, list(files.settings)) == ("4", ["paraphrased"])
