import subprocess
import sys

import pytest

from gradsim.queries.quality import Rewrite, find_faults
from gradsim.queries.quality.language import language_of

TEXTS = {
    "en": "The ferry leaves at noon, and whoever comes late has to wait until the evening.",
    "de": "Die Fähre legt mittags ab, und wer zu spät kommt, muss bis zum Abend warten.",
    "fr": "Le bac part à midi, et celui qui arrive en retard doit attendre jusqu'au soir.",
    "es": "El transbordador sale al mediodía, y quien llega tarde tiene que esperar hasta la noche.",
    "pt": "A balsa sai ao meio-dia, e quem chega atrasado tem de esperar até à noite.",
    "ru": "Паром отходит в полдень, и опоздавшим приходится ждать до вечера.",
    "zh": "渡轮中午出发，迟到的人要等到晚上才能走。",
    "ja": "フェリーは正午に出るので、遅れた人は夕方まで待たなければなりません。",
    "ar": "تغادر العبّارة ظهراً، ومن يتأخر عليه أن ينتظر حتى المساء.",
}
OPERAS = "La Bohème, Così fan tutte, Le nozze di Figaro, Don Giovanni, La traviata, Il trovatore"
CODE = """```python
def fahre(abfahrt):
    \"\"\"Gibt zurück, wann die Fähre ablegt, oder nichts.\"\"\"
    return abfahrt
```"""


@pytest.mark.parametrize("before", TEXTS)
@pytest.mark.parametrize("after", TEXTS)
def test_a_change_of_language_is_found(before: str, after: str) -> None:
    rewrite = Rewrite("assistant", TEXTS[before], TEXTS[after], TEXTS[before], "stop")
    assert ("language" in find_faults(rewrite)) == (before != after)


@pytest.mark.parametrize(
    ("original", "text"),
    [
        pytest.param(
            f"Please translate this.\n\n{TEXTS['zh']}",
            f"Would you be so kind as to give me a good English translation of this Chinese text?\n\n{TEXTS['zh']}",
            id="two languages, the other one prevails",
        ),
        pytest.param(
            f'Translate "{TEXTS["de"]}"',
            f'What is the best translation into idiomatic English that you can give me of the sentence "{TEXTS["de"]}"',
            id="a quotation",
        ),
        pytest.param(
            f"Why is there no output when I call this?\n{CODE}",
            "What is the reason that a call of `fahre(abfahrt)` has no output?",
            id="comments in code",
        ),
        pytest.param("Which operas do you like best, and which do you not like?", f"{OPERAS}?", id="names of works"),
        pytest.param(TEXTS["en"], "qwer asdf zxcv hjkl vbnm uiop " * 4, id="what is no language"),
        pytest.param("Why did she leave the town?", "Der Grund ist unbekannt.", id="short texts"),
        pytest.param("https://example.org/der/die/das/und/oder/aber " * 3, TEXTS["en"], id="addresses"),
        pytest.param("3.14159 2.71828 1.41421 1.61803 0.57721 " * 3, TEXTS["en"], id="numbers"),
        pytest.param("for (int i = 0; i < n; ++i) { sum += values[i]; } return sum;", TEXTS["en"], id="bare code"),
    ],
)
def test_what_is_unsure_or_mixed_is_left_alone(original: str, text: str) -> None:
    assert "language" not in find_faults(Rewrite("user", original, text, "", "stop"))


@pytest.mark.slow
def test_identification_is_the_same_in_every_process() -> None:
    texts = list(TEXTS.values())
    code = f"from gradsim.queries.quality.language import language_of; print([language_of(text) for text in {texts}])"
    results = {
        subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert results == {f"{[language_of(text) for text in texts]}\n".encode()}


def test_the_library_is_only_loaded_where_it_is_needed() -> None:
    code = "import sys, gradsim.queries.quality; print('py3langid' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"
