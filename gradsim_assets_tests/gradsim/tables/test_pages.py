from pathlib import Path

import pytest

from gradsim.errors import TableError
from gradsim.tables import Provenance
from gradsim.tables.pages import read_page_provenance, write_page

PAGE = "<!doctype html><title>report</title><!-- a comment --><p>é</p>"


def test_a_page_keeps_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "study/report.html"
    known = Provenance(fingerprint="f", excluded={"--> a": "with -- and ---- and <!-- in it"})
    written = write_page(PAGE, path, known)
    assert read_page_provenance(path) == written
    assert written.excluded == known.excluded
    text = path.read_text()
    assert text.startswith(PAGE)
    assert text.removeprefix(PAGE).count("-->") == 1  # nothing of it shows on the page
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_equal_pages_have_equal_versions(tmp_path: Path) -> None:
    versions = [
        write_page(page, tmp_path / "report.html", Provenance(created=when)).data_version
        for page, when in [(PAGE, "then"), (PAGE, "now"), (PAGE + " ", "now")]
    ]
    assert versions[0] == versions[1] != versions[2]


def test_a_missing_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(TableError) as caught:
        read_page_provenance(path)
    assert str(caught.value) == f"{path}: does not exist; create it with gradsim report"


@pytest.mark.parametrize("content", [b"", PAGE.encode(), b"\xff\xfe", (PAGE + "<!-- gradsim {} -->")[:-4].encode()])
def test_a_page_without_provenance(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(content)
    with pytest.raises(TableError, match=rf"^{path}: not a readable table \(.+\); delete it and run again$"):
        read_page_provenance(path)
