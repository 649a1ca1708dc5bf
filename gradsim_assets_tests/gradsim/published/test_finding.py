"""Which files are found, and what is said where it is not clear which are meant."""

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
    assert published.settings["paraphrased"].projected_similarity is not None


def test_projections_in_two_places_are_refused(single: Layout) -> None:
    single.write()
    shutil.copytree(single.root / "data/gradient_similarity/random_projection", single.root / "data/random_projection")
    with pytest.raises(TableError, match="both hold projections of 'paraphrased'; remove"):
        find_published(single.root)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "nowhere: no such folder; name the one that holds dot_products/"),
        ("data/dot_products", r"lies within dot_products/; name the folder that holds it: .*published/data$"),
        ("data/dot_products/paraphrased/org", r"name the folder that holds it: .*published/data$"),
        ("results", "neither dot_products/ nor data/dot_products/ but parameters_per_layer; name"),
    ],
)
def test_a_wrong_folder(layout: Layout, given: str, message: str) -> None:
    layout.write()
    with pytest.raises(StudyError, match=message):
        find_published(layout.root / given)


def test_a_folder_without_results(tmp_path: Path) -> None:
    (tmp_path / "dot_products/paraphrased/org/model/sample_size/full").mkdir(parents=True)
    with pytest.raises(StudyError, match="dot_products: holds no <setting>/<model>/sample_size/<size>/"):
        find_published(tmp_path)


def test_of_several_models_one_must_be_named(layout: Layout) -> None:
    layout.write()
    folder = layout.root / "data/dot_products/paraphrased"
    shutil.copytree(folder / MODEL, folder / "org/other")
    with pytest.raises(StudyError, match="more than one model: org/model, org/other; say which"):
        find_published(layout.root)
    with pytest.raises(StudyError, match="no results of model 'third'; it has org/model, org/other"):
        find_published(layout.root, model="third")
    assert list(find_published(layout.root, model=MODEL).settings) == ["paraphrased", "model_generated"]
    other = find_published(layout.root, model="org/other")
    assert list(other.settings) == ["paraphrased"]
    assert other.findings == ("Setting model_generated is left out: it has only model org/model.",)
    assert other.parameters is None


def test_of_several_sample_sizes_full_is_taken_or_one_named(layout: Layout) -> None:
    layout.write()
    sizes = layout.whole("dot_products").parents[1]
    shutil.copytree(sizes / "full", sizes / "3")
    shutil.copytree(sizes / "full", sizes / "4")
    assert find_published(layout.root).sample_size == "full"
    three = find_published(layout.root, sample_size="3")
    assert (three.sample_size, list(three.settings)) == ("3", ["paraphrased"])
    assert three.findings == ("Setting model_generated is left out: it has only sample size full.",)
    with pytest.raises(StudyError, match="setting 'model_generated' has no results of org/model with sample size 3"):
        find_published(layout.root, sample_size="3", settings=["model_generated", "paraphrased"])
    shutil.rmtree(sizes / "full")
    shutil.rmtree(layout.whole("dot_products", "model_generated").parents[1])
    with pytest.raises(StudyError, match="more than one sample size: 3, 4; say which"):
        find_published(layout.root)
    with pytest.raises(StudyError, match="no results of sample size '5'; it has 3, 4"):
        find_published(layout.root, sample_size="5")


def test_an_unknown_setting(layout: Layout) -> None:
    layout.write()
    with pytest.raises(StudyError, match="no setting 'other'; it has model_generated, paraphrased"):
        find_published(layout.root, settings=["other"])


def test_a_setting_that_lacks_a_table(layout: Layout) -> None:
    layout.write()
    layout.whole("query_self", "model_generated").unlink()
    with pytest.raises(TableError, match=r"full: lacks paraphrased_dot_products.json, whole and in parts; bring it"):
        find_published(layout.root)
    assert list(find_published(layout.root, settings=["paraphrased"]).settings) == ["paraphrased"]


def test_files_that_no_table_is_named_as_are_told(single: Layout) -> None:
    single.write()
    copy = single.whole("dot_products").with_name("dot_products (1).json")
    shutil.copyfile(single.whole("dot_products"), copy)
    (finding,) = find_published(single.root).findings
    assert finding.startswith("Setting paraphrased: not read, because no table is named so: dot_products (1).json in")


def test_gradient_similarities_of_other_sizes_are_told(layout: Layout) -> None:
    layout.write()
    folder = layout.root / "data/gradient_similarity/model_generated" / MODEL
    folder.mkdir(parents=True)
    for name in ("sample_size_100.json", "sample_size_3_part_0_2.json"):
        (folder / name).touch()
    published = layout.read()
    assert published.settings["model_generated"].gradient_similarity is None
    assert published.findings == (
        "Setting model_generated: there is no gradient similarity of this sample size (but of 100, 3); it will be "
        "computed from the dots.",
    )


@pytest.mark.parametrize("table", ["dot_products", "query_self", "original_self", "gradient_similarity", "projections"])
class TestParts:
    """Parts whose names leave no doubt that something is wrong."""

    def test_a_gap(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        part = single.part(table, 1, 3)
        part.unlink()
        with pytest.raises(TableError, match=rf"queries 1 up to 3 are missing, .* bring {part.name} or the parts"):
            find_published(single.root)

    def test_no_beginning(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        single.part(table, 0, 1).unlink()
        with pytest.raises(TableError, match="queries 0 up to 1 are missing"):
            find_published(single.root)

    def test_an_overlap(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 3, 4)
        shutil.copyfile(single.part(table, 1, 3), single.part(table, 2, 4))
        with pytest.raises(TableError, match=r"_part_2_4.json: begins with query 2, but .* go up to 3; remove"):
            find_published(single.root)

    def test_an_end_before_the_beginning(self, single: Layout, table: str) -> None:
        single.write()
        single.write_parts(table, 1, 4)
        single.part(table, 1, 4).rename(single.part(table, 1, 1))
        with pytest.raises(TableError, match=r"_part_1_1.json: is named as a part that ends where or before it begins"):
            find_published(single.root)
