import pytest

from gradsim.dataset.token_estimate import estimated_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("four", 1), ("fours", 2), ("naïve été", 3), ("人们应该尊重", 6), ("Say 你好.", 4)],
)
def test_a_token_for_four_letters_and_for_each_ideograph(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens
