import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2Config, GPTJConfig, LlamaConfig, MambaConfig, OPTConfig

from gradsim import models
from gradsim.chat import tokenize
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import DeviceError, ModelError, SampleError
from gradsim.study import ModelConfiguration


def samples_of(times: int) -> pl.DataFrame:
    """Questions and answers of different length; `times` makes all answers longer."""
    rows = [
        (
            f"s{number}",
            [
                {"role": "user", "content": f"How many {noun} are {number} {noun} and one more?"},
                {"role": "assistant", "content": f"{number + 1} {noun}, since one of them came. " * length * times},
            ],
        )
        for number, (noun, length) in enumerate([("apples", 1), ("birds", 4), ("clouds", 2), ("ducks", 1)])
    ]
    return pl.DataFrame(rows, schema=SAMPLES_SCHEMA, orient="row")


SAMPLES = samples_of(times=1)


def train(folder: Path, samples: pl.DataFrame = SAMPLES, **settings: object) -> models.TrainedModel:
    small = {"layers": 2, "hidden_size": 32, "vocabulary": 300, "positions": 256, "steps": 12, "tokens_per_step": 128}
    return models.train_reference_model(samples, folder, **(small | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> models.TrainedModel:
    return train(tmp_path_factory.mktemp("models") / "tiny")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def raised(error: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


class TestReferenceModel:
    def test_is_an_olmo_with_tied_embeddings_and_no_other_parameters(self, trained: models.TrainedModel) -> None:
        shapes = models.parameter_shapes(ModelConfiguration(str(trained.folder)))
        block = {"q": (32, 32), "k": (32, 32), "v": (32, 32), "o": (32, 32)}
        expected: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (300, 32))]
        for layer in range(2):
            name = f"model.layers.{layer}"
            expected += [(f"{name}.self_attn.{key}_proj.weight", shape) for key, shape in block.items()]
            expected += [(f"{name}.mlp.{key}_proj.weight", (128, 32)) for key in ("gate", "up")]
            expected += [(f"{name}.mlp.down_proj.weight", (32, 128))]
        assert shapes == expected
        assert trained.parameters == sum(torch.Size(shape).numel() for _, shape in shapes)
        model = models.load_model(ModelConfiguration(str(trained.folder), device="cpu"))
        assert [(layer, tuple(weight.shape)) for layer, weight in model.named_parameters()] == shapes

    def test_learns(self, trained: models.TrainedModel) -> None:
        assert trained.steps == 12
        assert trained.final_loss < trained.first_loss - 1

    def test_same_seed_gives_the_same_bits_and_another_does_not(
        self, trained: models.TrainedModel, tmp_path: Path
    ) -> None:
        again = train(tmp_path / "again")
        assert digests(again.folder) == digests(trained.folder)
        assert again[1:] == trained[1:]
        other = train(tmp_path / "other", seed=7)
        assert digests(other.folder)["tokenizer.json"] == digests(trained.folder)["tokenizer.json"]
        assert digests(other.folder)["model.safetensors"] != digests(trained.folder)["model.safetensors"]

    def test_number_of_threads_changes_no_bit(self, tmp_path: Path) -> None:
        longer = samples_of(times=20)
        threads = torch.get_num_threads()
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                # Short samples would be summed by one thread at any rate.
                train(tmp_path / str(count), longer, hidden_size=64, positions=4096, tokens_per_step=4096, steps=2)
        finally:
            torch.set_num_threads(threads)
        assert digests(tmp_path / "1") == digests(tmp_path / "2")

    def test_leaves_torch_as_it_was(self, tmp_path: Path) -> None:
        state = torch.get_rng_state()
        threads = torch.get_num_threads()
        train(tmp_path / "model", steps=1)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        assert not torch.are_deterministic_algorithms_enabled()

    def test_replaces_a_finished_model_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "model"
        first = train(folder, steps=1)
        before = digests(folder)
        second = train(folder, steps=1, seed=7)
        assert first.folder == second.folder == folder
        assert digests(folder) != before
        assert list(folder.parent.iterdir()) == [folder]

    def test_broken_off_training_leaves_the_old_model(self, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        train(folder, steps=1)
        before = digests(folder)

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(folder, steps=2, progress=stop)
        assert digests(folder) == before
        assert list(tmp_path.iterdir()) == [folder]

    def test_takes_another_tokenizer_as_it_is(self, trained: models.TrainedModel, tmp_path: Path) -> None:
        other = train(tmp_path / "other", tokenizer=trained.folder, vocabulary=17, steps=1)
        assert digests(other.folder)["tokenizer.json"] == digests(trained.folder)["tokenizer.json"]
        messages = SAMPLES["messages"].to_list()[0]
        first, second = (tokenize(messages, models.load_tokenizer(str(run.folder))) for run in (trained, other))
        assert first == second

    def test_texts_are_learned_as_they_are_and_token_ids_need_their_tokenizer(
        self, trained: models.TrainedModel, tmp_path: Path
    ) -> None:
        tokens = pl.DataFrame(
            {"id": ["a"], "messages": [[{"role": "tokens", "content": "5 6 7"}]]}, schema=SAMPLES.schema
        )
        text = pl.DataFrame({"id": ["a"], "messages": [[{"role": "text", "content": "ab ab"}]]}, schema=SAMPLES.schema)
        encoder = models.load_tokenizer(str(train(tmp_path / "texts", text, steps=1).folder))
        assert encoder.tokenize("ab ab") == ["ab", "Ġ", "ab"]
        assert len(encoder) == 2 + 256 + 1  # special tokens, bytes, and the one merge of this text
        found = raised(SampleError, lambda: train(tmp_path / "tokens", tokens, steps=1))
        assert found == (
            "the samples are token ids, so no tokenizer can be trained on them; set `model.reference.tokenizer` in the "
            "study file to the folder of the one that made them"
        )
        train(tmp_path / "tokens", tokens, steps=1, tokenizer=trained.folder)

    def test_reports_progress(self, tmp_path: Path) -> None:
        calls: list[tuple[int, int]] = []
        train(tmp_path / "model", steps=3, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]

    def test_refuses_a_sample_past_its_positions(self, tmp_path: Path) -> None:
        found = raised(SampleError, lambda: train(tmp_path / "model", positions=64))
        assert found.startswith("sample 's1' has ")
        assert list(tmp_path.iterdir()) == []


class TestLoading:
    def test_other_files_than_the_revision_asked_for(self, trained: models.TrainedModel) -> None:
        name, found = str(trained.folder), models.fetch(str(trained.folder)).revision
        assert models.load_model(ModelConfiguration(name, revision=found, device="cpu")) is not None
        with pytest.raises(ModelError) as caught:
            models.load_model(ModelConfiguration(name, revision="0" * 64, device="cpu"))
        assert str(caught.value) == (
            f"model {name}: its files have revision {found[:12]}, not 000000000000 as recorded in the study's `model` "
            "table; restore them, or delete that table and run again"
        )

    @pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
    def test_precision_attention_and_eval_mode(
        self, trained: models.TrainedModel, precision: Literal["float32", "float64", "bfloat16"]
    ) -> None:
        configuration = ModelConfiguration(str(trained.folder), device="cpu", precision=precision, attention="eager")
        model = models.load_model(configuration)
        assert {weight.dtype for weight in model.parameters()} == {getattr(torch, precision)}
        assert not model.training
        assert model.config._attn_implementation == "eager"

    def test_unknown_model_is_neither_folder_nor_had(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        ending = "check its spelling, revision and the network, set HF_TOKEN if it is gated, or download it beforehand"
        calls: list[Callable[[], object]] = [
            lambda: models.load_model(ModelConfiguration("nobody/nothing", device="cpu")),
            lambda: models.load_tokenizer("nobody/nothing"),
            lambda: models.parameter_shapes(ModelConfiguration("nobody/nothing")),
            lambda: models.fetch("nobody/nothing"),
        ]
        for call in calls:
            assert raised(ModelError, call) == (
                "model nobody/nothing: not a local folder, and not available from the Hub "
                f"(no network, and it is not in the cache); {ending}"
            )
        absent = tmp_path / "absent"
        assert raised(ModelError, lambda: models.fetch(str(absent))) == (
            f"model {absent}: not a local folder, and not available from the Hub (not a valid Hub name); {ending}"
        )

    def test_damaged_folders(self, trained: models.TrainedModel, tmp_path: Path) -> None:
        def copy(name: str) -> Path:
            return Path(shutil.copytree(trained.folder, tmp_path / name))

        def load(folder: Path) -> Callable[[], object]:
            return lambda: models.load_model(ModelConfiguration(str(folder), device="cpu"))

        empty = copy("empty")
        (empty / "model.safetensors").unlink()
        assert raised(ModelError, load(empty)) == (
            f"model {empty}: {empty} contains no weights (*.safetensors); download or train it again"
        )
        cut = copy("cut")
        (cut / "model.safetensors").write_bytes(b"\x08")
        assert raised(ModelError, load(cut)).startswith(f"model {cut}: cannot be loaded (")
        lacking = copy("lacking")
        weights = load_file(lacking / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, lacking / "model.safetensors", {"format": "pt"})
        assert raised(ModelError, load(lacking)) == (
            f"model {lacking}: its weights do not contain model.layers.1.mlp.up_proj.weight; download or train it again"
        )
        strange = copy("strange")
        (strange / "config.json").write_text(json.dumps({"model_type": "t5"}))
        assert raised(ModelError, lambda: models.parameter_shapes(ModelConfiguration(str(strange)))).startswith(
            f"model {strange}: cannot be built as a causal language model ("
        )
        (strange / "config.json").write_text("{}")
        assert raised(ModelError, lambda: models.read_configuration(str(strange))).startswith(
            f"model {strange}: its configuration cannot be read ("
        )
        assert raised(ModelError, lambda: models.load_tokenizer(str(tmp_path))).startswith(
            f"model {tmp_path}: its tokenizer cannot be loaded ("
        )

    def test_unknown_attention(self, trained: models.TrainedModel) -> None:
        configuration = ModelConfiguration(str(trained.folder), device="cpu", attention="none")
        assert raised(ModelError, lambda: models.load_model(configuration)).startswith(
            f"model {trained.folder}: cannot be loaded ("
        )


class TestDevice:
    @pytest.fixture(params=[0, 2])
    def gpus(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
        return int(request.param)

    def test_device_that_is_there(self, gpus: int) -> None:
        assert models.resolve_device("cpu") == "cpu"
        assert models.resolve_device("auto") == ("cuda:0" if gpus else "cpu")
        if gpus:
            assert models.resolve_device("cuda") == "cuda:0"
            assert models.resolve_device("cuda:1") == "cuda:1"

    @pytest.mark.parametrize("device", ["cuda:2", "gpu", "cuda:x", ""])
    def test_device_that_is_not(self, gpus: int, device: str) -> None:
        there = "cpu, cuda:0, cuda:1" if gpus else "cpu"
        assert raised(DeviceError, lambda: models.resolve_device(device)) == (
            f"device {device!r} is not available, only {there}; set MT_DEVICE to one of these, or to auto"
        )

    def test_device_is_checked_before_the_model(self) -> None:
        with pytest.raises(DeviceError):
            models.load_model(ModelConfiguration("nobody/nothing", device="cuda:99"))


class TestFetch:
    def test_local_revision_follows_contents(self, trained: models.TrainedModel, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(trained.folder, tmp_path / "copy"))
        assert models.fetch(str(copy)) == (copy, models.fetch(str(trained.folder)).revision)
        (copy / "notes.md").write_text("not part of the model")
        assert models.fetch(str(copy)).revision == models.fetch(str(trained.folder)).revision
        (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
        assert models.fetch(str(copy)).revision != models.fetch(str(trained.folder)).revision

    def test_cached_model_needs_no_network(
        self, trained: models.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(trained.folder, repository / "snapshots" / commit)
        for revision in (None, "main", commit):
            fetched = models.fetch("someone/tiny", revision)
            assert fetched.revision == commit
            assert digests(fetched.folder) == digests(trained.folder)
        model = models.load_model(ModelConfiguration("someone/tiny", device="cpu"))
        assert model.num_parameters() == trained.parameters
        assert raised(ModelError, lambda: models.fetch("someone/tiny", "v2")).startswith("model someone/tiny: ")


@pytest.mark.parametrize(
    ("configuration", "context", "rotary"),
    [
        (LlamaConfig(max_position_embeddings=77), 77, True),
        (GPT2Config(n_positions=77), 77, False),
        (OPTConfig(max_position_embeddings=77), 77, False),
        (GPTJConfig(n_positions=77), 77, False),  # rotary, but from a table of 77 rows
        (MambaConfig(), None, False),
        (AutoConfig.for_model("qwen2", max_position_embeddings=77), 77, True),
    ],
)
def test_context_and_positions(configuration: object, context: int | None, rotary: bool) -> None:
    assert models.context_length(configuration) == context  # type: ignore[arg-type]
    assert models.has_rotary_positions(configuration) is rotary  # type: ignore[arg-type]
