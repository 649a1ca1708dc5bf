"""A tiny model written as GGUF is the model that it was written from, or it is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType, TokenType
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from gradsim import models
from gradsim.errors import ModelError
from gradsim.models.reference import train_reference_model
from gradsim.study import ModelConfiguration
from gradsim_assets_tests.gradsim.test_models import SAMPLES

FILE = "tiny.gguf"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TEXTS = ["Steps:\n\n1. Boil 12 eggs\n\n2. Eat", "x  34", "naïve – 日本<|endoftext|>"]

# transformers' name of a module -> GGUF's.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("models") / "tokenizer"
    train_reference_model(SAMPLES, folder, layers=1, hidden_size=16, heads=2, vocabulary=320, positions=256, steps=1)
    return models.load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def original(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    torch.manual_seed(0)
    configuration = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=77,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(configuration).eval()


def write(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    change: Callable[[GGUFWriter], object] = lambda writer: None,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    split: str = "gpt-2",
    leave_out: str = "nothing",
) -> None:
    """Write a model as llama.cpp does; matrices are quantized, vectors are not."""
    writer, config = GGUFWriter(path, "qwen2"), model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    backend = tokenizer.backend_tokenizer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    tokens = [backend.id_to_token(place) for place in range(len(tokenizer))]
    special = set(tokenizer.all_special_ids)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if place in special else TokenType.NORMAL for place in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.named_parameters():
        module, _, kind = name.rpartition(".")
        if (block := module.split(".", 3))[:2] == ["model", "layers"]:
            place, inner = block[2], block[3]
            stored = f"blk.{place}.{NAMES[inner]}.{kind}"
        else:
            stored = f"{NAMES[module]}.{kind}"
        kept = quantization if weight.ndim > 1 else GGMLQuantizationType.F32
        if stored != leave_out:
            writer.add_tensor(stored, gguf.quantize(weight.detach().numpy(), kept), raw_dtype=kept)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def folder(tmp_path: Path, original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    write(tmp_path / FILE, original, tokenizer)
    return tmp_path


def load(folder: Path) -> PreTrainedModel:
    return models.load_model(ModelConfiguration(str(folder), device="cpu", gguf=FILE))


def refusal(call: Callable[[], object], folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        call()
    beginning, message = str(error.value).split(": ", 1)
    assert beginning == f"model {folder}"
    assert "\n" not in message
    return message


def test_weights_shapes_and_configuration_are_those_of_the_model(folder: Path, original: PreTrainedModel) -> None:
    loaded, expected = dict(load(folder).named_parameters()), dict(original.named_parameters())
    assert list(loaded) == list(expected)
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items())
    shapes = [(name, tuple(weight.shape)) for name, weight in expected.items()]
    assert models.parameter_shapes(ModelConfiguration(str(folder), gguf=FILE)) == shapes
    configuration = models.read_configuration(str(folder), gguf=FILE)
    assert models.context_length(configuration) == 77
    assert models.has_rotary_positions(configuration)


@pytest.mark.parametrize(("quantization", "tolerance"), [("F16", 1e-3), ("Q8_0", 1e-2), ("Q4_1", 1e-1)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_quantized_weights_have_the_precision_of_the_study(
    tmp_path: Path,
    original: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    quantization: str,
    tolerance: float,
    precision: str,
) -> None:
    write(tmp_path / FILE, original, tokenizer, quantization=GGMLQuantizationType[quantization])
    configuration = ModelConfiguration(str(tmp_path), device="cpu", gguf=FILE, precision=precision)  # type: ignore[arg-type]
    loaded = models.load_model(configuration)
    for name, weight in original.named_parameters():
        found = loaded.get_parameter(name)
        assert found.dtype == getattr(torch, precision)
        assert (found - weight).abs().max() <= tolerance * weight.abs().max()


class TestTokenizer:
    def test_is_the_one_that_was_written(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        found = models.load_tokenizer(str(folder), gguf=FILE)
        assert [found(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]
        assert found.chat_template == TEMPLATE
        assert found.special_tokens_map.items() >= {"eos_token": tokenizer.eos_token}.items()
        assert models.load_tokenizer(str(folder), chat_template="other", gguf=FILE).chat_template == "other"

    def test_digits_are_split_off_where_the_file_says_so(
        self, tmp_path: Path, original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        def pieces(of: PreTrainedTokenizerBase) -> list[str]:
            split = of.backend_tokenizer.pre_tokenizer
            return [piece for piece, _ in split.pre_tokenize_str("x  34")]

        write(tmp_path / FILE, original, tokenizer, split="smollm")
        assert pieces(models.load_tokenizer(str(tmp_path), gguf=FILE)) == ["x", "ĠĠ", "3", "4"]
        assert pieces(tokenizer) == ["x", "Ġ", "Ġ34"]

    def test_an_unknown_split_needs_a_tokenizer_of_its_own(
        self, tmp_path: Path, original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        write(tmp_path / FILE, original, tokenizer, split="unheard-of")
        assert refusal(lambda: models.load_tokenizer(str(tmp_path), gguf=FILE), tmp_path) == (
            f"{FILE} splits text as 'unheard-of', which transformers does not know; "
            f"copy the model's tokenizer.json and tokenizer_config.json to {tmp_path}"
        )
        tokenizer.save_pretrained(tmp_path)
        found = models.load_tokenizer(str(tmp_path), gguf=FILE)
        assert [found(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]
        assert found.chat_template is None


class TestFetch:
    def test_revision_follows_the_file_and_nothing_that_is_not_read(self, folder: Path) -> None:
        first = models.fetch(str(folder), gguf=FILE).revision
        (folder / "model.safetensors").write_bytes(b"not read")
        shutil.copyfile(folder / FILE, folder / "other.gguf")
        assert models.fetch(str(folder), gguf=FILE).revision == first
        assert models.fetch(str(folder), gguf="other.gguf").revision != first
        with (folder / FILE).open("ab") as file:
            file.write(b"\0")
        assert models.fetch(str(folder), gguf=FILE).revision != first

    def test_from_the_cache_of_the_hub(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "cache" / "models--someone--tiny"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        shutil.copyfile(folder / FILE, snapshot / FILE)
        assert models.fetch("someone/tiny", weights=False, gguf=FILE) == (snapshot, commit)
        model = models.load_model(ModelConfiguration("someone/tiny", device="cpu", gguf=FILE))
        assert model.config.model_type == "qwen2"


class TestRefused:
    def test_without_the_package(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gradsim.models.gguf_file.is_gguf_available", lambda: False)
        assert refusal(lambda: load(folder), folder) == (
            f"reading {FILE} needs the package gguf; pip install 'gradsim[gguf]'"
        )

    def test_another_name(self, folder: Path) -> None:
        assert refusal(lambda: models.fetch(str(folder), gguf="big.gguf"), folder) == (
            f"{folder} contains no big.gguf; choose {FILE}"
        )
        assert refusal(lambda: models.fetch(str(folder)), folder) == (
            f"{folder} contains no *.safetensors, but {FILE}; set `gguf: {FILE}`"
        )
        (folder / FILE).unlink()
        assert refusal(lambda: models.fetch(str(folder), gguf=FILE), folder) == (
            f"{folder} contains no {FILE}; download it"
        )

    @pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", b"GGUF\x03\0\0\0"])
    def test_malformed_files(self, folder: Path, content: bytes) -> None:
        (folder / FILE).write_bytes(content)
        for call in (models.load_tokenizer, models.read_configuration, models.fetch):
            message = refusal(lambda call=call: call(str(folder), gguf=FILE), folder)  # type: ignore[misc]
            assert message.startswith(f"{folder / FILE} cannot be read (")
            assert message.endswith("; download it again")

    def test_incomplete_download(self, folder: Path) -> None:
        content = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(content[: len(content) - 4096])
        assert refusal(lambda: load(folder), folder).startswith("cannot be loaded (")

    def test_missing_weight(
        self, tmp_path: Path, original: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        write(tmp_path / FILE, original, tokenizer, leave_out="blk.1.ffn_up.weight")
        assert refusal(lambda: load(tmp_path), tmp_path) == (
            "its weights do not contain model.layers.1.mlp.up_proj.weight; download or train it again"
        )

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda writer: writer.add_rope_scaling_type(RopeScalingType.YARN), "qwen2.rope.scaling.type"),
            (lambda writer: writer.add_tensor("rope_freqs.weight", numpy.ones(4, "f4")), "rope_freqs.weight"),
        ],
    )
    def test_scaled_positions(
        self,
        tmp_path: Path,
        original: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        change: Callable[[GGUFWriter], object],
        found: str,
    ) -> None:
        write(tmp_path / FILE, original, tokenizer, change)
        assert refusal(lambda: load(tmp_path), tmp_path) == (
            f"{FILE} scales rotary positions ({found}), which transformers would ignore; use the model's safetensors"
        )
