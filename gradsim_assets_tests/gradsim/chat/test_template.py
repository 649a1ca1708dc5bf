"""Chat templates with the features of today's families, each with the text that its loss covers, written by hand."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gradsim.chat import MASKED, prompt_ids, template, tokenize
from gradsim.errors import ModelError, SampleError
from gradsim.study import LossOn

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot|>", "<|head|>", "<|/head|>", "<think>", "</think>")

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST, SECOND = {"role": "user", "content": "Why is it?"}, {"role": "user", "content": "And now?"}
ANSWER, LAST = {"role": "assistant", "content": "It is so."}, {"role": "assistant", "content": "Now it is done."}
ONE_TURN, TWO_TURNS = [FIRST, ANSWER], [FIRST, ANSWER, SECOND, LAST]


@dataclass(frozen=True)
class Style:
    """A template, and the texts that the loss covers in a conversation of two turns.

    Attributes:
        template: Jinja text.
        last: Text that the loss on the last answer covers.
        first: Text that the loss on all answers covers besides.
        everything: First characters that the loss on everything covers.
    """

    template: str
    last: str
    first: str
    everything: str


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STYLES = {
    "chatml": Style(CHATML, "Now it is done.<|im_end|>\n", "It is so.<|im_end|>\n", "<|im_start|>user\nWhy"),
    "default system prompt": Style(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}" + CHATML,
        "Now it is done.<|im_end|>\n",
        "It is so.<|im_end|>\n",
        "Why is it?",
    ),
    "BOS inside, roles as words": Style(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}{{ raise_exception('no system') }}"
        "{% endif %}{% endfor %}",
        " Now it is done.</s>",
        " It is so.</s>",
        "<s>[INST] Why",
    ),
    "headers, trimmed content": Style(
        "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>"
        "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}",
        "Now it is done.<|eot|>",
        "It is so.<|eot|>",
        "<s><|head|>user",
    ),
    "role named model": Style(
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
        "Now it is done.<|im_end|>\n",
        "It is so.<|im_end|>\n",
        "<s><|im_start|>user",
    ),
    "generation markers": Style(
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}"
        "<|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "Now it is done.<|im_end|>",
        "It is so.<|im_end|>",
        "<|im_start|>user\nWhy",
    ),
    "empty thoughts in the last turn": Style(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n"
        "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<think>\n\n</think>\n\nNow it is done.<|im_end|>\n",
        "It is so.<|im_end|>\n",
        "<|im_start|>user\nWhy",
    ),
    "generation prompt that starts a thought": Style(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        "Now it is done.<|im_end|>\n",
        "It is so.<|im_end|>\n",
        "<|im_start|>user\nWhy",
    ),
    "end token after the last answer only": Style(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% elif messages[-1].role == 'assistant' %}{{ eos_token }}{% endif %}",
        " Now it is done.\n</s>",
        " It is so.\n",
        "user: Why",
    ),
    "no generation prompt": Style(
        "{% for m in messages %}{{ m.role | upper }}\n{{ m.content }}{{ eos_token }}{% endfor %}",
        "ASSISTANT\nNow it is done.</s>",
        "ASSISTANT\nIt is so.</s>",
        "USER\nWhy",
    ),
    "alpaca": Style(
        "{% for m in messages %}{{ '### Instruction:\n' if m.role == 'user' else '### Response:\n' }}{{ m.content }}"
        "\n\n{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
        "Now it is done.\n\n",
        "It is so.\n\n",
        "### Instruction",
    ),
}


def trained(*, words: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE with BOS and EOS of its own; its tokens cross the borders of words unless it splits them."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    bpe.decoder = decoders.ByteLevel()
    texts = [f"{each['content']}\n{role}: {each['content']}" for each in TWO_TURNS for role in ("user", "assistant")]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(texts * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", additional_special_tokens=list(SPECIAL[2:])
    )


def covered(labels: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the labels that are not masked."""
    return str(tokenizer.decode([label for label in labels if label != MASKED]))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return trained(words=True)


@pytest.fixture(params=STYLES, ids=list(STYLES))
def style(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> Style:
    found = STYLES[request.param]
    tokenizer.chat_template = found.template
    return found


@pytest.mark.parametrize("loss_on", ["last_answer", "all_answers", "everything"])
@pytest.mark.parametrize("messages", [ONE_TURN, TWO_TURNS], ids=["one turn", "two turns"])
def test_tokens_are_those_of_apply_chat_template(style, tokenizer, messages, loss_on: LossOn):
    sample = tokenize(messages, tokenizer, template="model", loss_on=loss_on)
    assert sample.input_ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert sample.input_ids.count(tokenizer.bos_token_id) <= 1
    assert all(label in (MASKED, token) for label, token in zip(sample.labels, sample.input_ids, strict=True))
    assert prompt_ids(messages[:-1], tokenizer, "model") == sample.input_ids_prompt


def test_the_loss_covers_what_is_written_here(style, tokenizer):
    def text(messages: list[dict[str, str]], loss_on: LossOn) -> str:
        return covered(tokenize(messages, tokenizer, template="model", loss_on=loss_on).labels, tokenizer)

    assert text(TWO_TURNS, "last_answer") == style.last
    assert text(TWO_TURNS, "all_answers") == style.first + style.last
    assert text(TWO_TURNS, "everything").startswith(style.everything)


@pytest.mark.parametrize(
    "name", sorted(set(STYLES) - {"generation markers", "generation prompt that starts a thought"})
)
def test_labels_equal_trls_completion_mask(name, tokenizer):
    """TRL masks as many tokens as the prompt has, which requires that the prompt's tokens are a prefix."""
    tokenizer.chat_template = STYLES[name].template
    sample = tokenize(TWO_TURNS, tokenizer, template="model")
    length = len(sample.input_ids_prompt)
    assert sample.input_ids[:length] == sample.input_ids_prompt
    assert sample.labels == [MASKED] * length + sample.input_ids[length:]


@pytest.mark.parametrize("loss_on", ["last_answer", "all_answers"])
def test_labels_equal_the_templates_own_marks(tokenizer, loss_on: LossOn):
    tokenizer.chat_template = STYLES["generation markers"].template
    messages = ONE_TURN if loss_on == "last_answer" else TWO_TURNS
    marked = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    labels = tokenize(messages, tokenizer, template="model", loss_on=loss_on).labels
    assert [label != MASKED for label in labels] == [bool(mark) for mark in marked["assistant_masks"]]


def test_a_token_that_merges_prompt_and_answer_counts():
    tokenizer = trained(words=False)
    tokenizer.chat_template = STYLES["end token after the last answer only"].template
    sample = tokenize(TWO_TURNS, tokenizer, template="model")
    length = len(sample.input_ids_prompt)
    assert sample.input_ids[:length] != sample.input_ids_prompt
    assert covered(sample.labels, tokenizer).endswith(" Now it is done.\n</s>")
    first = next(place for place, label in enumerate(sample.labels) if label != MASKED)
    assert str(tokenizer.decode(sample.input_ids[first])).endswith("assistant: ")  # the answer starts with the space


def test_a_stated_system_prompt_belongs_to_everything(tokenizer):
    tokenizer.chat_template = STYLES["default system prompt"].template
    sample = tokenize([SYSTEM, *ONE_TURN], tokenizer, template="model", loss_on="everything")
    assert sample.labels == sample.input_ids


def test_a_thought_in_an_earlier_answer_that_the_template_removes(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
        "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    thoughtful = {"role": "assistant", "content": "<think>Hm.</think>It is so."}
    messages = [FIRST, thoughtful, SECOND, LAST]
    last = tokenize(messages, tokenizer, template="model").labels
    assert covered(last, tokenizer) == "Now it is done.<|im_end|>\n"
    with pytest.raises(SampleError, match="sample 'x' has an answer in message 2 that the chat template changes"):
        tokenize(messages, tokenizer, template="model", loss_on="all_answers", sample_id="x")


def test_a_role_that_the_template_refuses(tokenizer):
    tokenizer.chat_template = STYLES["BOS inside, roles as words"].template
    with pytest.raises(SampleError) as caught:
        tokenize([SYSTEM, *ONE_TURN], tokenizer, template="model", sample_id="x")
    assert str(caught.value) == "sample 'x' cannot be rendered by the chat template (no system); fix or remove it"


@pytest.mark.parametrize(
    ("endless", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "it takes more than 0.2 s"),
        ("{{ 'ab' * 600 }}", "it makes 1,200 characters of it"),
    ],
)
def test_a_template_without_end(endless, reason, tokenizer, monkeypatch):
    monkeypatch.setattr(template, "SECONDS_TO_RENDER", 0.2)
    monkeypatch.setattr(template, "LONGEST_TEXT", 1000)
    tokenizer.chat_template = endless
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with pytest.raises(SampleError) as caught:
        tokenize(ONE_TURN, tokenizer, template="model", sample_id="x")
    assert str(caught.value) == f"sample 'x' cannot be rendered by the chat template ({reason}); fix or remove it"
    assert signal.getsignal(signal.SIGALRM) == handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (timer[0] > 0)


def test_templates_render_on_any_thread(tokenizer):
    with ThreadPoolExecutor(1) as pool:
        tokenizer.chat_template = STYLES["BOS inside, roles as words"].template
        rendered = pool.submit(tokenize, ONE_TURN, tokenizer, template="model").result()
    assert rendered == tokenize(ONE_TURN, tokenizer, template="model")


def test_a_conversation_that_does_not_end_with_an_answer(style, tokenizer):
    with pytest.raises(SampleError) as caught:
        tokenize([*ONE_TURN, SECOND], tokenizer, template="model", sample_id="x")
    assert "sample 'x' does not end with an answer" in str(caught.value)


def test_a_tokenizer_without_a_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template; set `chat\\.template` in the study file to tulu or"):
        tokenize(ONE_TURN, tokenizer, template="model")
