from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gradsim.chat import MASKED, TOKENIZED_SCHEMA, TokenizedSample, render, tokenize, tokenize_table
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import ModelError, SampleError

USER = {"role": "user", "content": "a b"}
ANSWER = {"role": "assistant", "content": "c d e"}
LONG_ANSWER = {"role": "assistant", "content": "c c c c c c"}


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """A tokenizer of another family: one token a word, and begin and end tokens of its own around every text."""
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *"abcde"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", name_or_path="words"
    )


def samples(**messages: list[dict[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(list(messages.items()), schema=SAMPLES_SCHEMA, orient="row")


@pytest.fixture(scope="module")
def tokenizer(golden: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(golden / "tokenizer")


class TestGolden:
    def test_lima(self, golden: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        originals = pl.read_parquet(golden / "lima/original.parquet")
        expected = pl.read_parquet(golden / "tokenization/lima_2048.parquet")
        chosen = originals.head(expected.height)
        assert tokenize_table(chosen, tokenizer, context=None).frame.equals(expected.drop("attention_mask"))
        masks = [tokenize(messages, tokenizer).attention_mask for messages in chosen["messages"].to_list()]
        assert masks == expected["attention_mask"].to_list()

    def test_excluded_by_length_as_the_original_filters(self, golden: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        verdicts = pl.read_parquet(golden / "tokenization/lima_filter.parquet")
        chosen = pl.read_parquet(golden / "lima/original.parquet").head(verdicts.height)
        for context in (512, 2048):
            table = tokenize_table(chosen, tokenizer, context=context, on_long_sample="exclude")
            assert table.frame["id"].to_list() == verdicts.filter(f"kept_{context}")["id"].to_list()
            assert list(table.excluded) == verdicts.filter(~pl.col(f"kept_{context}"))["id"].to_list()

    def test_edge_cases(self, golden: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        refused = []
        for case in pl.read_parquet(golden / "tokenization/edge_cases.parquet").iter_rows(named=True):
            messages = case["messages"]
            if case["error"] or len(case["labels"]) > len(case["input_ids"]):
                refused.append(case["id"])
                with pytest.raises(SampleError, match=case["id"]):
                    tokenize(messages, tokenizer, sample_id=case["id"])
                continue
            expected = TokenizedSample(*(case[field] for field in TokenizedSample._fields))
            assert tokenize(messages, tokenizer) == expected, case["id"]
            assert render(messages, "<|endoftext|>", cue=False) == case["rendered"]
            assert render(messages[:-1] or messages, "<|endoftext|>", cue=True) == case["rendered_prompt"]
        assert len(refused) == 4


class TestTokenize:
    def test_any_tokenizer_gets_no_special_tokens_but_the_templates(self, words: PreTrainedTokenizerBase) -> None:
        # <|user|> a b <|assistant|>, then c d and "e</s>"; the last one is an end token
        assert tokenize([USER, ANSWER], words) == TokenizedSample(
            [0, 3, 4, 0], [0, 3, 4, 0, 5, 6, 7, 2], [1] * 8, [MASKED] * 4 + [5, 6, 7, 2]
        )

    @pytest.mark.parametrize(
        ("messages", "message"),
        [
            ([], "sample 'x' has no messages; fix or remove it"),
            ([USER, {"role": "assistant", "content": None}], "sample 'x' has no text in message 2; fix or remove it"),
            ([{"role": "user"}, ANSWER], "sample 'x' has no text in message 1; fix or remove it"),
            (
                [USER],
                "sample 'x' does not end with an answer: its prompt has 4 tokens, the whole text only 3; "
                "make the assistant's answer the last message",
            ),
        ],
    )
    def test_refusal_names_the_sample(self, words: PreTrainedTokenizerBase, messages: list[Any], message: str) -> None:
        with pytest.raises(SampleError) as caught:
            tokenize(messages, words, sample_id="x")
        assert str(caught.value) == message

    def test_message_without_text_is_fine_where_its_role_gives_none(self, words: PreTrainedTokenizerBase) -> None:
        silent = {"role": "tool", "content": None}
        assert tokenize([USER, silent, ANSWER], words) == tokenize([USER, ANSWER], words)  # type: ignore[list-item]

    def test_tokenizer_without_end_token(self) -> None:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), name_or_path="endless"
        )
        with pytest.raises(ModelError) as caught:
            tokenize([USER, ANSWER], tokenizer)
        assert str(caught.value) == "tokenizer endless has no end token; set eos_token in its configuration"


class TestTokenizeTable:
    def test_schema_and_order(self, words: PreTrainedTokenizerBase) -> None:
        table = tokenize_table(samples(b=[USER, ANSWER], a=[USER, LONG_ANSWER]), words, context=None)
        assert table.frame.schema == TOKENIZED_SCHEMA
        assert table.frame["id"].to_list() == ["b", "a"]
        assert table.excluded == {}

    def test_long_sample_is_an_error_left_out_or_kept(self, words: PreTrainedTokenizerBase) -> None:
        rows = samples(a=[USER, LONG_ANSWER], b=[USER, ANSWER])
        with pytest.raises(SampleError) as caught:
            tokenize_table(rows, words, context=8)
        assert str(caught.value) == (
            "sample 'a' has 11 tokens but the model's context length is 8; "
            "set `truncate` in the study file, or `on_long_sample` to exclude or keep (now error)"
        )
        excluded = tokenize_table(rows, words, context=8, on_long_sample="exclude")
        assert excluded.frame["id"].to_list() == ["b"]
        assert excluded.excluded == {"a": "11 tokens, the model's context holds 8"}
        kept = tokenize_table(rows, words, context=8, on_long_sample="keep")
        assert kept.frame["input_ids"].list.len().to_list() == [11, 8]

    def test_long_sample_is_not_kept_without_positions_for_it(self, words: PreTrainedTokenizerBase) -> None:
        rows = samples(a=[USER, LONG_ANSWER])
        with pytest.raises(ModelError) as caught:
            tokenize_table(rows, words, context=8, rotary_positions=False, on_long_sample="keep")
        assert str(caught.value) == (
            "sample 'a' has 11 tokens but the model has no positions past 8; "
            "set `on_long_sample` in the study file to exclude or error (now keep)"
        )
        assert tokenize_table(rows, words, context=11, rotary_positions=False, on_long_sample="keep").excluded == {}

    def test_sample_without_unmasked_label(self, words: PreTrainedTokenizerBase) -> None:
        # The last message's role and text are one word each, as many as the cue for an answer.
        rows = samples(a=[USER, {"role": "user", "content": ""}], b=[USER, ANSWER])
        with pytest.raises(SampleError) as caught:
            tokenize_table(rows, words, context=None)
        assert str(caught.value) == (
            "sample 'a' has no unmasked label, so it has no loss; "
            "set `on_bad_sample: exclude` in the study file or remove it"
        )
        table = tokenize_table(rows, words, context=None, on_bad_sample="exclude")
        assert table.frame["id"].to_list() == ["b"]
        assert table.excluded == {"a": "no unmasked label"}


class TestTruncation:
    """Tokens and labels are those that TRL keeps, ids[:n] or ids[-n:], without another end or begin token."""

    rows = samples(a=[USER, LONG_ANSWER], b=[USER, ANSWER])

    @pytest.mark.parametrize(
        ("side", "part", "name"), [("right", slice(None, 9), "first"), ("left", slice(-9, None), "last")]
    )
    def test_one_side_is_cut_off(self, words: PreTrainedTokenizerBase, side: Any, part: slice, name: str) -> None:
        whole = tokenize([USER, LONG_ANSWER], words)
        for limits in ({"context": None, "max_length": 9}, {"context": 9}, {"context": 9, "max_length": 99}):
            table = tokenize_table(self.rows, words, truncate=side, **limits)
            assert table.frame.row(0)[2:] == (whole.input_ids[part], whole.labels[part])
            assert table.frame.row(1)[2] == tokenize([USER, ANSWER], words).input_ids
            assert (table.truncated, table.excluded) == ({"a": f"{name} 9 of 11 tokens"}, {})
        prompt = table.frame.row(0)[1]
        assert prompt == whole.input_ids_prompt[2 if side == "left" else 0 :]

    def test_what_is_left_can_have_no_loss(self, words: PreTrainedTokenizerBase) -> None:
        with pytest.raises(SampleError) as caught:
            tokenize_table(self.rows, words, context=None, max_length=4, truncate="right")
        assert str(caught.value) == (
            "sample 'a' has no unmasked label in the 4 of 11 tokens that truncation leaves, so it has no loss; "
            "set `on_bad_sample: exclude` in the study file or remove it"
        )
        table = tokenize_table(self.rows, words, context=None, max_length=4, truncate="right", on_bad_sample="exclude")
        assert (table.frame.height, table.truncated) == (0, {})
        assert table.excluded["a"] == "no unmasked label in the 4 of 11 tokens that truncation leaves"

    def test_without_truncation_long_samples_are_handled_as_the_study_says(
        self, words: PreTrainedTokenizerBase
    ) -> None:
        with pytest.raises(SampleError) as caught:
            tokenize_table(self.rows, words, context=20, max_length=8)
        assert str(caught.value) == (
            "sample 'a' has 11 tokens but max_length is 8; "
            "set `truncate` in the study file, or `on_long_sample` to exclude (now error)"
        )
        table = tokenize_table(self.rows, words, context=20, max_length=8, on_long_sample="exclude")
        assert (table.frame["id"].to_list(), table.excluded) == (["b"], {"a": "11 tokens, max_length is 8"})


class TestVocabulary:
    def test_a_token_that_the_model_has_no_embedding_for(self, words: PreTrainedTokenizerBase) -> None:
        known = samples(x=[USER, {"role": "assistant", "content": "c"}], y=[USER, ANSWER])
        assert tokenize_table(known, words, context=None, vocabulary=len(words)).frame.height == 2
        with pytest.raises(ModelError) as error:
            tokenize_table(known, words, context=None, vocabulary=len(words) - 1)
        assert str(error.value) == (
            "sample 'y' has token 7 ('e'), but the model has 7 embeddings and its tokenizer 8 tokens; use the "
            "tokenizer that it was trained with, or resize its embeddings (resize_token_embeddings) and train them"
        )
