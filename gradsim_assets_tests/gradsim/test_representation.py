"""Summaries of objects as text and as HTML."""

from gradsim.representation import Summarized, Summary

HOSTILE = """<img src=x onerror="alert('1')"> & 'more'"""


class Example(Summarized):
    def _summary(self) -> Summary:
        return Summary(f"Example {HOSTILE}", {"a": "1", f"longer {HOSTILE}": HOSTILE})


def test_text_has_a_line_for_each_fact() -> None:
    assert Summary("Title", {"a": "1", "longer": "2"}).text() == "Title\n  a       1\n  longer  2"
    assert Summary("Title", {}).text() == "Title"
    assert repr(Example()) == Example()._summary().text()


def test_html_shows_everything_as_text() -> None:
    page = Example()._repr_html_()
    assert page.count("&lt;img src=x onerror=&quot;alert(&#x27;1&#x27;)&quot;&gt; &amp; &#x27;more&#x27;") == 3
    assert "<img" not in page
    assert page.startswith("<div>")
    assert page.count("<tr>") == page.count("</tr>") == 2
