"""A pretrained model from a GGUF file: its answers, its chat template, its gradients."""

import copy
from pathlib import Path

import numpy as np
import pytest
from smollm2 import FILE, INSTALL, smollm2_folder
from transformers import PreTrainedTokenizerBase

from gradsim.chat import MASKED, prompt_ids, tokenize
from gradsim.gradients import compare
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models import RunningModel, load_description, load_tokenizer
from gradsim.models.finetuning import _save_tokenizer
from gradsim.partition_job.inputs import TokenSequence
from gradsim.study import LossOn, ModelConfiguration
from gradsim.text_generation.local import generate_answers

# Reading the file takes half a minute, more where other tests run.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": "It is Paris.\n\n1. Paris"}
OTHER = {"role": "user", "content": "And of Italy?"}
LAST = {"role": "assistant", "content": "Rome."}

# One layer of each kind, in the first, a middle and the last block.
LAYERS = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.14.mlp.down_proj.weight",
    "model.layers.29.self_attn.v_proj.weight",
    "model.norm.weight",
)


@pytest.fixture(scope="module")
def smollm2() -> RunningModel:
    folder = smollm2_folder()
    if folder is None:
        pytest.skip(f"SmolLM2 is not installed: {INSTALL}")
    return RunningModel(ModelConfiguration(str(folder), device="cpu", gguf=FILE))


def test_the_tokenizer_reads_the_same_from_the_folder_of_a_trained_model(smollm2: RunningModel, tmp_path: Path) -> None:
    load_description(smollm2.configuration).config.save_pretrained(tmp_path)
    _save_tokenizer(smollm2.tokenizer, smollm2.configuration, tmp_path)
    of_folder = load_tokenizer(str(tmp_path))
    for text in ("In 1999, 12345 people  came.\n\n\tYes!", "don't, L'été à 3.14", "日本語 and 🙂"):
        assert of_folder.encode(text) == smollm2.tokenizer.encode(text)
    assert of_folder.chat_template == smollm2.tokenizer.chat_template


def text_of(tokenizer: PreTrainedTokenizerBase, labels: list[int]) -> str:
    return str(tokenizer.decode([label for label in labels if label != MASKED]))


def test_answers(smollm2: RunningModel) -> None:
    prompt = prompt_ids([QUESTION], smollm2.tokenizer, "model")
    (answer,) = generate_answers(smollm2.model, smollm2.tokenizer, [prompt], max_new_tokens=16)
    assert answer.text == "The capital of France is Paris."
    assert answer.finished


@pytest.mark.parametrize("messages", [[QUESTION, ANSWER], [SYSTEM, QUESTION, ANSWER], [QUESTION, ANSWER, OTHER, LAST]])
def test_tokens_are_those_of_its_chat_template(smollm2: RunningModel, messages: list[dict[str, str]]) -> None:
    def applied(of: list[dict[str, str]], cue: bool) -> object:
        return smollm2.tokenizer.apply_chat_template(of, tokenize=True, add_generation_prompt=cue, return_dict=False)

    sample = tokenize(messages, smollm2.tokenizer, template="model")
    assert sample.input_ids == applied(messages, False)
    assert sample.input_ids_prompt == applied(messages[:-1], True)
    assert sample.input_ids.count(smollm2.tokenizer.bos_token_id) == len(messages) + (messages[0] != SYSTEM)


@pytest.mark.parametrize(
    ("loss_on", "covered"),
    [
        ("last_answer", "Rome.<|im_end|>\n"),
        ("all_answers", "It is Paris.\n\n1. Paris<|im_end|>\nRome.<|im_end|>\n"),
        # Not the system prompt, which the template adds by itself.
        (
            "everything",
            "What is the capital of France?<|im_end|>\n<|im_start|>assistant\nIt is Paris.\n\n1. Paris<|im_end|>\n"
            "<|im_start|>user\nAnd of Italy?<|im_end|>\n<|im_start|>assistant\nRome.<|im_end|>\n",
        ),
    ],
)
def test_labels(smollm2: RunningModel, loss_on: LossOn, covered: str) -> None:
    messages = [QUESTION, ANSWER, OTHER, LAST]
    sample = tokenize(messages, smollm2.tokenizer, template="model", loss_on=loss_on)
    assert text_of(smollm2.tokenizer, sample.labels) == covered
    assert "named SmolLM" in smollm2.tokenizer.decode(sample.input_ids)


def test_a_system_prompt_of_the_sample_has_a_loss_on_everything(smollm2: RunningModel) -> None:
    sample = tokenize([SYSTEM, QUESTION, ANSWER], smollm2.tokenizer, template="model", loss_on="everything")
    assert sample.labels == sample.input_ids


def test_dots_are_those_of_float64_autograd(smollm2: RunningModel) -> None:
    conversations = {"query": [QUESTION, LAST], "near": [QUESTION, ANSWER], "far": [OTHER, LAST]}
    samples = []
    for name, messages in conversations.items():
        sample = tokenize(messages, smollm2.tokenizer, template="model")
        samples.append(TokenSequence(name, sample.input_ids, sample.labels))
    exact = copy.deepcopy(smollm2.model).double()
    query, *originals = [reference_gradient(exact, sample, LAYERS) for sample in samples]
    dots = np.array([reference_dots(query, original) for original in originals])
    squares = np.array([reference_dots(gradients, gradients) for gradients in (query, *originals)])
    # In float64, too, the norms of transformers' Llama compute in float32, and magnify rounding in the last digits.
    for precision, tolerance in (("float64", 1e-6), ("float32", 1e-5)):
        found = compare(smollm2.model, samples[:1], samples[1:], "all", layers=LAYERS, precision=precision)
        assert (np.abs(found.dots - dots) <= tolerance * np.sqrt(squares[0] * squares[1:])).all()
