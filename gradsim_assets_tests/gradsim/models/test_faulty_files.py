"""Model folders with malformed files, with code, and with pickles: refused in one line, and no code runs."""

import json
import shutil
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from gradsim import models
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import ModelError
from gradsim.study import ModelConfiguration

CONFIGURATION, GENERATION = "config.json", "generation_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
ALL_FILES = (CONFIGURATION, GENERATION, *TOKENIZER)


def load_model(folder: Path) -> object:
    return models.load_model(ModelConfiguration(str(folder), device="cpu"))


LOADERS: dict[str, Callable[[Path], object]] = {
    "tokenizer": lambda folder: models.load_tokenizer(str(folder)),
    "configuration": lambda folder: models.read_configuration(str(folder)),
    "shapes": lambda folder: models.parameter_shapes(ModelConfiguration(str(folder))),
    "model": load_model,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is an example."}]
    samples = pl.DataFrame([{"id": "s0", "messages": turns}], schema=SAMPLES_SCHEMA)
    sizes: dict[str, Any] = {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 300, "positions": 64, "steps": 1}
    return models.train_reference_model(samples, tmp_path_factory.mktemp("models") / "tiny", **sizes).folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def refused(call: Callable[[Path], object], folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        call(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


class TestMalformed:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
            (b"", "Expecting value: line 1 column 1 (char 0)"),
            (b"[]", "found list"),
            (b"null", "found NoneType"),
            (b"{\xff}", "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
            (b'{"a": ' * 70_000, "maximum recursion depth exceeded while decoding a JSON object from a unicode string"),
            (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit (4300 digits) for integer string conversion"),
        ],
    )
    @pytest.mark.parametrize("file", ALL_FILES)
    def test_what_is_no_json_object(self, folder: Path, file: str, content: bytes, reason: str) -> None:
        path = folder / file
        path.write_bytes(content)
        for name, call in LOADERS.items():
            if file not in TOKENIZER or name == "tokenizer":
                assert refused(call, folder).startswith(f"model {folder}: {path} is not a JSON object ({reason}")

    @pytest.mark.parametrize("changes", [{"num_hidden_layers": 2**31}, {"text_config": {"n_layer": 2001}}])
    def test_more_blocks_than_can_be_built(self, folder: Path, changes: dict[str, object]) -> None:
        change(folder / CONFIGURATION, **changes)
        for call in LOADERS.values():
            assert refused(call, folder).endswith(", more than 2,000; correct it")

    @pytest.mark.parametrize("file", ALL_FILES)
    def test_a_folder_in_the_place_of_a_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).mkdir()
        assert refused(LOADERS["tokenizer"], folder).startswith(f"model {folder}: {folder / file} is not a JSON object")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"num_hidden_layers": "x"}, "Validation error for field 'num_hidden_layers': TypeError: Field"),
            ({"model_type": []}, "unhashable type: 'list'"),
            ({"model_type": "unknown"}, "The checkpoint you are trying to load has model type `unknown`"),
        ],
    )
    def test_configurations_of_a_wrong_type(self, folder: Path, changes: dict[str, object], reason: str) -> None:
        change(folder / CONFIGURATION, **changes)
        for load in (LOADERS["configuration"], load_model):
            assert refused(load, folder).startswith(f"model {folder}: its configuration cannot be read ({reason}")

    @pytest.mark.parametrize(
        ("file", "changes"),
        [
            ("tokenizer.json", {"model": 3}),
            ("tokenizer.json", {"added_tokens": 3}),
            ("tokenizer.json", {"pre_tokenizer": {"type": "none"}}),
            ("tokenizer_config.json", {"tokenizer_class": 3}),
            ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
            ("tokenizer_config.json", {"auto_map": 3}),
        ],
    )
    def test_tokenizers_of_a_wrong_type(self, folder: Path, file: str, changes: dict[str, object]) -> None:
        change(folder / file, **changes)
        complaint = refused(LOADERS["tokenizer"], folder)
        assert complaint.startswith(f"model {folder}: its tokenizer cannot be loaded (")
        assert complaint.endswith(f"; check its files in {folder}")

    def test_generation_settings_of_a_wrong_type(self, folder: Path) -> None:
        change(folder / GENERATION, watermarking_config=3)
        assert refused(load_model, folder).startswith(f"model {folder}: cannot be loaded (")


class TestCode:
    """Code in a model's folder does not run, whatever the terminal answers."""

    @pytest.fixture(params=["", "yes\n" * 9])
    def answers(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StringIO:
        stdin = StringIO(str(request.param))
        monkeypatch.setattr(sys, "stdin", stdin)
        return stdin

    @pytest.fixture
    def marker(self, folder: Path, tmp_path: Path) -> Path:
        """A file that the folder's code would write."""
        marker = tmp_path / "code_ran"
        code = (
            f"open({str(marker)!r}, 'w').close()\n"
            "from transformers import OlmoConfig as C, OlmoForCausalLM as M, PreTrainedTokenizerFast as T\n"
        )
        (folder / "custom_generate").mkdir()
        for name in ("code.py", "custom_generate/generate.py"):
            (folder / name).write_text(code, encoding="utf-8")
        return marker

    @pytest.mark.parametrize("loader", LOADERS)
    @pytest.mark.parametrize("model_type", ["unknown", None])
    def test_a_model_that_needs_it(
        self, folder: Path, marker: Path, answers: StringIO, loader: str, model_type: str | None
    ) -> None:
        auto_map = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
        change(folder / CONFIGURATION, model_type=model_type, auto_map=auto_map)
        assert refused(LOADERS[loader], folder) == (
            f"model {folder}: its config.json names code of the model (auto_map), which is never run; "
            "choose a model that transformers supports itself"
        )
        assert answers.tell() == 0
        assert not marker.exists()

    def test_a_tokenizer_that_needs_it(self, folder: Path, marker: Path, answers: StringIO) -> None:
        (folder / CONFIGURATION).unlink()
        change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": [None, "code.T"]})
        assert "custom code" in refused(LOADERS["tokenizer"], folder)
        assert answers.tell() == 0
        assert not marker.exists()

    def test_a_model_that_transformers_supports_itself(self, folder: Path, marker: Path, answers: StringIO) -> None:
        change(folder / CONFIGURATION, auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
        change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "code.T"]})
        for call in LOADERS.values():
            call(folder)
        assert answers.tell() == 0
        assert not marker.exists()


def test_a_name_longer_than_that_of_a_file() -> None:
    assert refused(load_model, Path("x" * 300)).startswith(f"model {'x' * 300}: not a local folder, and not available")


class TestPickles:
    def test_are_refused_with_the_conversion(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        load_model(folder)
        weights.unlink()
        assert refused(load_model, folder) == (
            f"model {folder}: it has no weights as safetensors, and pickled ones (*.bin) are refused because they can "
            "contain code; set `gguf` if it has a GGUF file, or if you trust the pickled ones, convert them: "
            f"AutoModelForCausalLM.from_pretrained('{folder}').save_pretrained(FOLDER)"
        )
