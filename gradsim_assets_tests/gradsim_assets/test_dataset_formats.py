"""Studies of the same two samples in files of every format, from the file to the dots."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import datasets
import polars as pl
import pytest
import torch
from pyarrow import CompressedOutputStream
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from typer.testing import CliRunner

from gradsim.errors import SampleError
from gradsim.models import load_tokenizer, train_reference_model
from gradsim.notebook.texts import readable
from gradsim.tables import Store
from gradsim_assets.assets.dataset import load_originals
from gradsim_assets.cli import app
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Gradients = dict[str, dict[str, torch.Tensor]]

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TURNS = {"a": ("What is 1, or 2?", "It is one."), "b": ("Which is larger?", "Two is.\nOf course.")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A tiny model in the folder of the studies, with a chat template of its own."""
    place = Workplace(tmp_path_factory.mktemp("formats"))
    place.studies.mkdir()
    samples = pl.DataFrame([(name, messages(name)) for name in TURNS], schema=["id", "messages"], orient="row")
    folder = place.studies / "model"
    train_reference_model(samples, folder, layers=1, hidden_size=16, heads=2, vocabulary=300, positions=256, steps=2)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return place


@pytest.fixture(scope="module")
def tokenizer(place: Workplace) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(place.studies / "model"))


def messages(name: str) -> list[Row]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), TURNS[name], strict=True)]


def labels(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[list[int], list[int]]:
    """The token ids of a conversation, and its labels, by the tokenizer's own functions."""
    template: Any = tokenizer.apply_chat_template
    whole = template(messages(name), return_dict=False)
    prompt = template(messages(name)[:1], add_generation_prompt=True, return_dict=False)
    return whole, [-100] * len(prompt) + whole[len(prompt) :]


def chats(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [{"id": name, "messages": messages(name)} for name in TURNS]


def sharegpt(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [
        {"id": name, "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]}
        for name, (prompt, answer) in TURNS.items()
    ]


def completions(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [{"id": name, "prompt": prompt, "completion": answer} for name, (prompt, answer) in TURNS.items()]


def completions_of_messages(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [{"id": name, "prompt": messages(name)[:1], "completion": messages(name)[1:]} for name in TURNS]


def alpaca(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [
        {"id": name, "instruction": prompt, "input": "", "output": answer} for name, (prompt, answer) in TURNS.items()
    ]


def texts(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [{"id": name, "text": " ".join(TURNS[name])} for name in TURNS]


def tokens(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    rows = {name: labels(tokenizer, name) for name in TURNS}
    return [{"id": name, "input_ids": ids, "labels": known} for name, (ids, known) in rows.items()]


def masked_and_padded(tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return [
        {
            "id": row["id"],
            "input_ids": [*row["input_ids"], 0],
            "completion_mask": [*(int(label != -100) for label in row["labels"]), 0],
            "attention_mask": [1] * len(row["input_ids"]) + [0],
        }
        for row in tokens(tokenizer)
    ]


def write_json_lines(path: Path, rows: Sequence[Row]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with CompressedOutputStream(str(path), "zstd") if path.suffix == ".zst" else path.open("wb") as stream:
        stream.write(data)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())


def save(path: Path, rows: Sequence[Row]) -> None:
    datasets.Dataset.from_list(list(rows)).with_format("torch" if "input_ids" in rows[0] else None).save_to_disk(path)


WRITERS: dict[str, Callable[[Path, Sequence[Row]], object]] = {
    "jsonl": write_json_lines,
    "jsonl.zst": write_json_lines,
    "json": lambda path, rows: path.write_text(json.dumps(rows), encoding="utf-8"),
    "json.gz": lambda path, rows: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    "csv": write_csv,
    "csv.gz": write_csv,
    "parquet": lambda path, rows: pl.DataFrame(rows).write_parquet(path),
    "saved": save,
}
FILES = {
    "messages jsonl": ("messages", chats),
    "messages parquet": ("messages", chats),
    "messages saved": ("messages", chats),
    "sharegpt json": ("sharegpt", sharegpt),
    "sharegpt jsonl.zst": ("sharegpt", sharegpt),
    "completions csv": ("prompt_completion", completions),
    "messages json.gz": ("prompt_completion", completions_of_messages),
    "alpaca csv.gz": ("alpaca", alpaca),
    "text csv": ("text", texts),
    "text jsonl.zst": ("text", texts),
    "tokens parquet": ("tokens", tokens),
    "masks saved": ("tokens", masked_and_padded),
}


LIMITED = {"max_length": "32", "truncate": "left", "chat": "{loss: sum}"}


def write_study(place: Workplace, name: str, **sections: str) -> None:
    lines = {**sections, "samples": "2", "model": f"{{name: {place.studies}/model}}", "top_k": "all"}
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    (place.studies / f"{name}.yaml").write_text(text, encoding="utf-8")


def gradsim(place: Workplace, *arguments: str) -> str:
    """What a command prints; in this process, because every other one would import torch."""
    result = CliRunner().invoke(app, arguments, env=place.variables)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("name", "format_name", "rows"), [(name, *each) for name, each in FILES.items()], ids=FILES)
def test_a_file_of_each_format(
    place: Workplace,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    format_name: str,
    rows: Callable[[PreTrainedTokenizerBase], list[Row]],
) -> None:
    suffix = name.split()[1]
    path = place.studies / f"{name.replace(' ', '.')}"
    WRITERS[suffix](path, rows(tokenizer))
    study = name.replace(" ", "_").replace(".", "_")
    settings = f"{{same: {{method: file, path: {path.name}}}}}"
    write_study(place, study, dataset=f"{{path: {path.name}}}", settings=settings)
    gradsim(place, "run", study, "--computation", "dot-product")

    store = place.store(study)
    assert store.provenance(store.lineage.key("samples")).format == format_name
    expected = {each: labels(tokenizer, each) for each in TURNS}
    if format_name == "text":
        expected = {each: (tokenizer(" ".join(TURNS[each]))["input_ids"],) * 2 for each in TURNS}
    tokenized = store.read(store.lineage.key("tokenized"))
    assert {each: (ids, known) for each, _, ids, known in tokenized.iter_rows()} == expected
    if format_name == "tokens":
        shown = readable(store, store.read(store.lineage.key("samples")))["messages"].to_list()
        prompt = tokenizer.apply_chat_template(messages("a")[:1], tokenize=False, add_generation_prompt=True)
        assert [message["content"] for message in shown[0]] == [prompt, TURNS["a"][1] + tokenizer.eos_token]
    found = gradients(place.studies / "model", expected)
    assert_dots(store, found, found)


def gradients(folder: Path, samples: dict[str, tuple[list[int], list[int]]], reduction: str = "mean") -> Gradients:
    """Each sample's gradient of the loss by plain autograd, by layer."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = {}
    for name, (ids, known) in samples.items():
        model.zero_grad()
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(known[1:]), reduction=reduction).backward()
        found[name] = {
            layer: parameter.grad.double()
            for layer, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    return found


def assert_dots(store: Store, queries: Gradients, originals: Gradients) -> None:
    dots = store.read(store.lineage.key("dot_products", "same"))
    assert dots.height == sum(len(queries) * len(layers) for layers in originals.values())
    for query, original, layer, dot in dots.select("query_id", "original_id", "layer", "dot").iter_rows():
        one, two = queries[query][layer], originals[original][layer]
        assert dot == pytest.approx(float((one * two).sum()), rel=1e-4, abs=1e-5 * float(one.norm() * two.norm()))


def test_a_method_that_cannot_rewrite_the_samples_is_refused_when_they_are_loaded(
    place: Workplace, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = place.studies / "unfit.jsonl"
    write_json_lines(path, tokens(tokenizer))
    write_study(place, "unfit", dataset=f"{{path: {path.name}}}", settings="{dropped: {method: word_dropout}}")
    with pytest.raises(SampleError) as caught:
        load_originals(place.study("unfit"))
    assert str(caught.value) == (
        f"{path}: setting 'dropped': method word_dropout makes no queries of tokens; use the method file"
    )


def test_columns_of_other_names_rows_without_ids_and_a_summed_loss_of_truncated_samples(place: Workplace) -> None:
    """What is not used or cut off is stated, and so is the format."""
    rows = [
        {"question": prompt, "context": "", "output": answer, "source": "mine"} for prompt, answer in TURNS.values()
    ]
    write_csv(place.studies / "rows.csv.gz", rows)
    dataset = "{path: rows.csv.gz, columns: {instruction: question, input: context}}"
    write_study(place, "mapped", dataset=dataset, settings="{same: {method: word_dropout, every: 2}}", **LIMITED)
    assert "2 samples, format alpaca" in gradsim(place, "plan", "mapped")
    gradsim(place, "run", "mapped", "--computation", "dot-product")
    assert "2 samples, format alpaca" in gradsim(place, "plan", "mapped")

    store = place.store("mapped")
    samples = store.lineage.key("samples")
    assert store.read(samples).rows() == [("row_0", messages("a")), ("row_1", messages("b"))]
    with place.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(samples.parts))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert (metadata["format"].value, metadata["not used"].value) == ("alpaca", "source")

    tables = [store.read(store.lineage.key("tokenized", setting)) for setting in ("same", None)]
    queries, originals = ({name: (ids, known) for name, _, ids, known in table.iter_rows()} for table in tables)
    assert [len(ids) for ids, _ in originals.values()] == [27, 32]
    assert store.provenance(store.lineage.key("tokenized")).truncated == {"row_1": "last 32 of 36 tokens"}
    assert not store.provenance(store.lineage.key("tokenized", "same"), "0000-0001").truncated
    folder = place.studies / "model"
    assert_dots(store, gradients(folder, queries, "sum"), gradients(folder, originals, "sum"))
