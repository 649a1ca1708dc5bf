"""Errors of parsers become errors for users; everything else passes."""

import pytest

from gradsim.errors import ModelError, StudyError, first_line, parsing


class PanicException(BaseException):
    """A panic of a library in Rust, as pyo3 defines it."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no number"), "no number"),
        (ValueError("\n  the reason\n  more"), "the reason"),
        (ValueError("field 'a':\n    is no number\n"), "field 'a': is no number"),
        (RecursionError(), "RecursionError"),
        (KeyError("model"), "KeyError: 'model'"),
        (IndexError(), "IndexError"),
        (ValueError("x" * 400), f"{'x' * 300}..."),
        (PanicException("range end out of bounds"), "range end out of bounds"),
    ],
)
def test_an_error_of_a_parser_becomes_one_line(error: BaseException, reason: str) -> None:
    assert first_line(error) == reason
    with pytest.raises(StudyError) as caught, parsing(StudyError, "a.yaml: not YAML", "correct it"):
        raise error
    assert str(caught.value) == f"a.yaml: not YAML ({reason}); correct it"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), ModelError("its own line")])
def test_interrupts_and_errors_for_users_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, parsing(StudyError, "a.yaml: not YAML", "correct it"):
        raise error
    assert caught.value is error
