import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradsim.errors import StudyError
from gradsim.study import FileDataset, HubModel, Study, load_study
from gradsim.study.complaints import _SECTIONS
from gradsim.study.definition import Projection
from gradsim.study.section import Section
from gradsim.study.settings import QUERY_METHODS, Generate, QueryFile
from gradsim.study.studied_model import RunsModel

DROPOUT = {"method": "word_dropout"}
ALL_KEYS = (
    "bm25_part, chat, dataset, description, layers, max_length, model, on_bad_sample, on_long_sample, "
    "partition_size, projections, samples, seed, settings, top_k, truncate"
)
METHODS = "'file', 'paraphrase', 'local', 'generate' or 'word_dropout'"
RESERVED = (
    "use letters, digits and underscores, and none of analysis, gradient_index, layers, model, projections, report, "
    "results, samples, tokenized"
)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # unknown keys
    "top": ({"sample": 60, "samples": None}, "unknown key 'sample'; did you mean 'samples'?"),
    "top, nothing near": ({"colour": 1}, f"unknown key 'colour'; known keys: {ALL_KEYS}"),
    "chat": ({"chat": {"templat": "tulu"}}, "unknown key 'chat.templat'; did you mean 'template'?"),
    "chat template": (
        {"chat": {"template": "chatml"}},
        "chat.template: 'chatml' is none of tulu, model and a .jinja file",
    ),
    "chat of a reference model": (
        {"chat": {"template": "model"}},
        "chat.template: a reference model is trained with the tulu template; remove it",
    ),
    "loss with tulu": (
        {"chat": {"loss_on": "everything"}},
        "chat.loss_on: the tulu template supports last_answer; set another chat.template",
    ),
    "file dataset": (
        {"dataset": {"path": "a.jsonl", "split": "x"}},
        "unknown key 'dataset.split'; known keys: columns, format, path, single_turn",
    ),
    "dataset format": (
        {"dataset": {"path": "a.jsonl", "format": "chatml"}},
        "key 'dataset.format' is 'chatml'; it should be 'messages', 'sharegpt', 'prompt_completion', "
        "'alpaca', 'text' or 'tokens'",
    ),
    "column of no format": (
        {"dataset": {"path": "a.jsonl", "columns": {"question": "q"}}},
        "dataset.columns: 'question' is not a column of a format; map messages, id, conversations, prompt, completion, "
        "instruction, output, input, text, input_ids, labels, assistant_masks, completion_mask, loss_mask, "
        "attention_mask, position_ids or seq_lengths to names in the data",
    ),
    "column of another format": (
        {"dataset": {"path": "a.jsonl", "format": "sharegpt", "columns": {"messages": "q"}}},
        "dataset.columns: 'messages' is not a column of sharegpt; map conversations or id to names in the data",
    ),
    "bm25_part": ({"bm25_part": "text"}, "key 'bm25_part' is 'text'; it should be 'prompt', 'answer' or 'both'"),
    "loss": ({"chat": {"loss": "max"}}, "key 'chat.loss' is 'max'; it should be 'mean' or 'sum'"),
    "truncate": ({"truncate": "both"}, "key 'truncate' is 'both'; it should be 'left', 'right' or 'none'"),
    "max_length that nothing heeds": (
        {"max_length": 9, "on_long_sample": "keep"},
        "max_length: has no effect where on_long_sample is keep; set truncate, or on_long_sample to exclude",
    ),
    "value of where": (
        {"dataset": {"hub": "a", "where": {"x": [1]}}},
        "key 'dataset.where.x' is [1]; it should be text, a number, true or false",
    ),
    "hub dataset": ({"dataset": {"hub": "a", "splt": "x"}}, "unknown key 'dataset.splt'; did you mean 'split'?"),
    "dataset's kind": ({"dataset": {"pth": "a.jsonl"}}, "unknown key 'dataset.pth'; did you mean 'path'?"),
    "hub model": ({"model": {"name": "a", "precison": 1}}, "unknown key 'model.precison'; did you mean 'precision'?"),
    "gguf file": (
        {"model": {"name": "a", "gguf": "folder/b.gguf"}},
        "key 'model.gguf' is 'folder/b.gguf'; it should be the name of a file, such as model.gguf",
    ),
    "gguf of a reference model": (
        {"model": {"reference": {}, "gguf": "b.gguf"}},
        "unknown key 'model.gguf'; known keys: attention, precision, precision_of_memorised, reference",
    ),
    "quantization": (
        {"model": {"name": "a", "quantization": "4bit"}},
        "key 'model.quantization' is '4bit'; it should be 'int8', 'fp4', 'nf4' or 'nf4_double'",
    ),
    "gguf and quantization": (
        {"model": {"name": "a", "gguf": "b.gguf", "quantization": "nf4"}},
        "model.quantization: not supported with model.gguf, which is quantized already; remove one",
    ),
    "reference model": (
        {"model": {"reference": {}, "attntion": "sdpa"}},
        "unknown key 'model.attntion'; did you mean 'attention'?",
    ),
    "architecture": (
        {"model": {"reference": {"hiden_size": 16}}},
        "unknown key 'model.reference.hiden_size'; did you mean 'hidden_size'?",
    ),
    "model's kind": ({"model": {"nam": "a"}}, "unknown key 'model.nam'; did you mean 'name'?"),
    "file setting": (
        {"settings": {"a": {"method": "file", "pth": "b"}}},
        "unknown key 'settings.a.pth'; did you mean 'path'?",
    ),
    "word dropout": (
        {"settings": {"a": {**DROPOUT, "evry": 2}}},
        "unknown key 'settings.a.evry'; did you mean 'every'?",
    ),
    "paraphrase": (
        {"settings": {"a": {"method": "paraphrase", "temprature": 1}}},
        "unknown key 'settings.a.temprature'; did you mean 'temperature'?",
    ),
    "generate": (
        {"settings": {"a": {"method": "generate", "prompt": "b"}}},
        "unknown key 'settings.a.prompt'; did you mean 'prompts'?",
    ),
    "local": (
        {"settings": {"a": {"method": "local", "model": "org/model", "presicion": "float32"}}},
        "unknown key 'settings.a.presicion'; did you mean 'precision'?",
    ),
    "quality": (
        {"settings": {"a": {**DROPOUT, "quality": {"refusd": "keep"}}}},
        "unknown key 'settings.a.quality.refusd'; did you mean 'refused'?",
    ),
    "prices": (
        {"settings": {"a": {"method": "paraphrase", "prices": {"input": 1, "output": 2, "inputs": 3}}}},
        "unknown key 'settings.a.prices.inputs'; did you mean 'input'?",
    ),
    "setting named like a section": (
        {"settings": {"reference": {**DROPOUT, "layer": 2}}},
        "unknown key 'settings.reference.layer'; known keys: every, method, quality",
    ),
    "projection": ({"projections": [{"shar": 0.1}]}, "unknown key 'projections.0.shar'; did you mean 'share'?"),
    "two kinds of model": (
        {"model": {"name": "a", "reference": {}}},
        "unknown key 'model.reference'; known keys: adapter, adapter_revision, attention, finetune, gguf, name, "
        "precision, precision_of_memorised, quantization, revision",
    ),
    # missing keys
    "no samples": ({"samples": None}, "key 'samples' is missing; add it"),
    "no dataset": ({"dataset": None}, "key 'dataset' is missing; add it"),
    "no settings": ({"settings": None}, "key 'settings' is missing; add it"),
    "no path": ({"settings": {"a": {"method": "file"}}}, "key 'settings.a.path' is missing; add it"),
    "no size of a projection": (
        {"projections": [{"kind": "sjlt"}]},
        "projections.0: has no dimensions; set share, total or dimensions",
    ),
    "no method": ({"settings": {"a": {"path": "b"}}}, f"key 'settings.a.method' is missing; it should be {METHODS}"),
    "empty model": ({"model": {}}, "key 'model' has neither 'name' nor 'reference'; add one"),
    "empty dataset": ({"dataset": {}}, "key 'dataset' has neither 'hub' nor 'path'; add one"),
    "no setting": ({"settings": {}}, "key 'settings' is {}; it should be one entry at least"),
    # wrong values
    "text for a number": ({"samples": "many"}, "key 'samples' is 'many'; it should be a whole number"),
    "fraction": ({"samples": 3.5}, "key 'samples' is 3.5; it should be a whole number"),
    "none at all": ({"samples": 0}, "key 'samples' is 0; it should be at least 1"),
    "share of two": ({"projections": [{"share": 2}]}, "key 'projections.0.share' is 2; it should be at most 1.0"),
    "share of zero": ({"projections": [{"share": 0}]}, "key 'projections.0.share' is 0; it should be more than 0.0"),
    "one projection": ({"projections": {"share": 0.1}}, "key 'projections' is {'share': 0.1}; it should be a list"),
    "kind of projection": (
        {"projections": [{"kind": "normal", "share": 0.1}]},
        "key 'projections.0.kind' is 'normal'; it should be 'sjlt', 'logra', 'srht', 'mask', 'rademacher' or 'traker'",
    ),
    "choice": (
        {"on_long_sample": "cut"},
        "key 'on_long_sample' is 'cut'; it should be 'error', 'exclude' or 'keep'",
    ),
    "precision": (
        {"model": {"name": "a", "precision": "float16"}},
        "key 'model.precision' is 'float16'; it should be 'float32', 'tf32', 'bfloat16' or 'float64'",
    ),
    "model as a text": (
        {"model": "gpt2"},
        "key 'model' is 'gpt2'; it should be a mapping with the key 'name' or 'reference'",
    ),
    "number of layers": (
        {"model": {"reference": {"layers": 0}}},
        "key 'model.reference.layers' is 0; it should be at least 1",
    ),
    "where": (
        {"dataset": {"hub": "a", "where": "lima"}},
        "key 'dataset.where' is 'lima'; it should be a mapping of keys to values",
    ),
    "setting as a text": (
        {"settings": {"a": "file"}},
        "key 'settings.a' is 'file'; it should be a mapping of keys to values",
    ),
    "empty setting": ({"settings": {"a": None}}, "key 'settings.a' is empty; it should be a mapping of keys to values"),
    "method": (
        {"settings": {"a": {"method": "magic"}}},
        f"key 'settings.a.method' is 'magic'; it should be {METHODS}",
    ),
    "cost without prices": (
        {"settings": {"a": {"method": "paraphrase", "max_cost": 2.5}}},
        "max_cost: needs prices, in dollars for a million tokens: {input: 0.15, output: 0.60}",
    ),
    "retry without a model": (
        {"settings": {"a": {**DROPOUT, "quality": {"refused": "retry"}}}},
        "quality: retry is for a model that rewrites; choose keep or exclude",
    ),
    "retry of one attempt": (
        {"settings": {"a": {"method": "paraphrase", "quality": {"refused": "retry", "attempts": 1}}}},
        "quality.attempts: one attempt leaves none to retry; raise it",
    ),
    "choice of quality": (
        {"settings": {"a": {**DROPOUT, "quality": {"refused": "drop"}}}},
        "key 'settings.a.quality.refused' is 'drop'; it should be 'keep', 'retry' or 'exclude'",
    ),
    "local without a model": (
        {"settings": {"a": {"method": "local"}}},
        "key 'settings.a.model' is missing; add it",
    ),
    "dropout of all": (
        {"settings": {"a": {**DROPOUT, "every": 1}}},
        "key 'settings.a.every' is 1; it should be at least 2",
    ),
    "top_k as a text": ({"top_k": "many"}, "key 'top_k' is 'many'; it should be a whole number or 'all'"),
    "top_k of zero": ({"top_k": 0}, "key 'top_k' is 0; it should be at least 1 or 'all'"),
    "partition size": ({"partition_size": 0}, "key 'partition_size' is 0; it should be at least 1"),
    "more partitions than Dagster can manage": (
        {"samples": 10**9, "partition_size": 1000},
        "partition_size: 1,000 makes more than 100,000 partitions of 1,000,000,000 samples; use at least 10,000",
    ),
    "path with a null character": (
        {"dataset": {"path": "a\0.jsonl"}},
        r"key 'dataset.path' is 'a\x00.jsonl'; it should be a path",
    ),
    "long text": (
        {"samples": "n" * 500},
        f"key 'samples' is '{'n' * 99}...; it should be a whole number",
    ),
    # what does not go together
    "prompts that are not there": (
        {"settings": {"a": DROPOUT, "b": DROPOUT, "c": {"method": "generate", "prompts": "d"}}},
        "settings.c.prompts: 'd' is not a setting with rewritten prompts; choose among a, b",
    ),
    "prompts of its own": (
        {"settings": {"c": {"method": "generate", "prompts": "c"}}},
        "settings.c.prompts: 'c' is not a setting with rewritten prompts; add one",
    ),
    "reserved name": (
        {"settings": {"results": DROPOUT}},
        f"settings: 'results' cannot be a setting's name; {RESERVED}",
    ),
    "name with a hyphen": ({"settings": {"a-b": DROPOUT}}, f"settings: 'a-b' cannot be a setting's name; {RESERVED}"),
    "name with an accent": ({"settings": {"é": DROPOUT}}, f"settings: 'é' cannot be a setting's name; {RESERVED}"),
    "number as a name": ({"settings": {5: DROPOUT}}, "key 'settings.5' is 5; it should be text"),
    "two sizes of a projection": (
        {"projections": [{"share": 0.1}, {"share": 0.1, "total": 5}]},
        "projections.1: has both share and total; keep one",
    ),
    "total of zero": ({"projections": [{"total": 0}]}, "key 'projections.0.total' is 0; it should be at least 1"),
    "non-zeros of another kind": (
        {"projections": [{"kind": "srht", "share": 0.1, "nonzeros": 2}]},
        "projections.0.nonzeros: not supported by kind srht; remove it",
    ),
    "two stored projections": (
        {"projections": [{"share": each, "store_projected": True} for each in (0.1, 0.2)]},
        "projections: store_projected is set on more than one; set it on one only",
    ),
    "neither true nor false": (
        {"projections": [{"share": 0.1, "store_projected": "perhaps"}]},
        "key 'projections.0.store_projected' is 'perhaps'; it should be true or false",
    ),
    "projections twice": (
        {"projections": [{"share": 0.1}, {"share": 0.1}]},
        "projections: one is a duplicate; remove it",
    ),
}


@pytest.mark.parametrize(("changes", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_definition_is_one_line(write_study: Callable[..., Path], changes: dict, complaint: str) -> None:
    path = write_study(**changes)
    with pytest.raises(StudyError, match=f"^{re.escape(f'{path}: {complaint}')}$"):
        load_study(path)


def test_every_section_can_name_its_keys() -> None:
    def leaves(section: type[Section]) -> set[type[Section]]:
        return set().union(*(leaves(each) for each in section.__subclasses__())) or {section}

    ours = {section for section in leaves(Section) if section.__module__.startswith("gradsim.")}
    assert ours == {*_SECTIONS.values(), *QUERY_METHODS.values(), Study}
    assert RunsModel not in _SECTIONS.values()  # a part of two sections, not one itself


def test_a_study_comes_back_from_json(write_study: Callable[..., Path]) -> None:
    settings = {"generated": {"method": "generate", "prompts": "a"}, "a": {"method": "file", "path": "a.jsonl"}}
    study = load_study(write_study(model={"name": "org/model"}, settings=settings, projections=[{"share": 0.05}]))
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert isinstance(study.model, HubModel)
    assert isinstance(study.settings["a"], QueryFile)
    assert isinstance(study.settings["generated"], Generate)


def test_settings_come_after_those_whose_prompts_they_take(write_study: Callable[..., Path]) -> None:
    settings = {"generated": {"method": "generate", "prompts": "a"}, "b": DROPOUT, "a": DROPOUT}
    study = load_study(write_study(settings=settings))
    assert [name for name, _ in study.ordered_settings()] == ["b", "a", "generated"]


@pytest.mark.parametrize(
    ("share", "name"), [(0.01, "sjlt_1pct"), (0.05, "sjlt_5pct"), (0.001, "sjlt_0_1pct"), (1, "sjlt_100pct")]
)
def test_names_of_projections(share: float, name: str) -> None:
    assert Projection(share=share).name == name


@pytest.mark.parametrize(
    ("definition", "name", "method"),
    [
        ({"kind": "logra", "total": 5000}, "logra_total_5000", "logra"),
        ({"kind": "mask", "dimensions": {"a": 3}}, "mask_by_layer_779599ad", "mask"),
        ({"kind": "mask", "dimensions": {"a": 4}}, "mask_by_layer_41c9940e", "mask"),
        ({"share": 0.01, "nonzeros": 4}, "sjlt_4_nonzeros_1pct", "sjlt_4_nonzeros"),
        ({"share": 0.01, "scaling": "as_published"}, "sjlt_1pct", "sjlt_as_published"),
    ],
)
def test_names_of_kinds_sizes_and_scalings(definition: dict[str, Any], name: str, method: str) -> None:
    projection = Projection.model_validate(definition)
    assert (projection.name, projection.method) == (name, method)


def test_projections_whose_numbers_are_the_same_are_computed_once(write_study: Callable[..., Path]) -> None:
    published = {"share": 0.01, "scaling": "as_published", "store_projected": True}
    study = load_study(write_study(projections=[published, {"share": 0.01}, {"share": 0.05}]))
    assert [each.name for each in study.projected] == ["sjlt_1pct", "sjlt_5pct"]
    assert {each.scaling for each in study.projected} == {"unbiased"}
    assert study.stored_projection == study.projections[0]


def test_paths_are_meant_from_the_study_file(write_study: Callable[..., Path], tmp_path: Path) -> None:
    study = load_study(write_study(dataset={"path": "../my data/originals.jsonl"}))
    queries = study.settings["paraphrased"]
    assert isinstance(study.dataset, FileDataset)
    assert isinstance(queries, QueryFile)
    assert study.dataset.path == tmp_path / "my data/originals.jsonl"
    assert queries.path == tmp_path / "studies/queries.jsonl"
