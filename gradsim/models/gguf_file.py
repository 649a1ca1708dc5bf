"""GGUF files: refusal of what transformers would read wrongly, and their tokenizers."""

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.utils.import_utils import is_gguf_available

from gradsim.errors import ModelError, parsing

# Values of `tokenizer.ggml.pre`, which says how text is split before byte-level BPE. For those that are not in its own
# table, transformers splits as GPT-2 does.
_LIKE_GPT2 = frozenset({"gpt-2", "mpt", "olmo", "jais"})
_DIGITS_FIRST = frozenset({"smollm", "starcoder", "refact", "command-r"})
_DIGITS = pre_tokenizers.Digits(individual_digits=True)


def require_readable(path: Path, name: str) -> None:
    """Require that transformers reads a GGUF file, and all that it says about positions.

    Args:
        path: the file.
        name: name of the model in error messages.

    Raises:
        ModelError: The file is absent or malformed, it scales rotary positions, or the package gguf is not installed.
    """
    if not is_gguf_available():
        raise ModelError(f"model {name}: reading {path.name} needs the package gguf; pip install 'gradsim[gguf]'")
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.gguf")))
        raise ModelError(
            f"model {name}: {path.parent} contains no {path.name}; {f'choose {there}' if there else 'download it'}"
        )
    metadata, tensors = _metadata(path, name)
    architecture = metadata["general.architecture"]
    factors = [tensor for tensor in tensors if tensor.startswith("rope_")]
    scaling = f"{architecture}.rope.scaling.type"
    # Only for gpt-oss does transformers read the scaling.
    if factors or (metadata.get(scaling, "none") != "none" and architecture != "gpt-oss"):
        raise ModelError(
            f"model {name}: {path.name} scales rotary positions ({[*factors, scaling][0]}), which transformers would "
            "ignore; use the model's safetensors"
        )


def load_gguf_tokenizer(path: Path, name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file.

    Args:
        path: the file.
        name: name of the model in error messages.

    Raises:
        ModelError: transformers would split text differently.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    metadata, _ = _metadata(path, name)
    split = metadata.get("tokenizer.ggml.pre")
    if metadata["tokenizer.ggml.model"] == "gpt2" and split not in {*GGUF_PRE_TOKENIZER_SPLITS, *_LIKE_GPT2}:
        if split not in _DIGITS_FIRST:
            raise ModelError(
                f"model {name}: {path.name} splits text as '{split}', which transformers does not know; "
                f"copy the model's tokenizer.json and tokenizer_config.json to {path.parent}"
            )
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence([_DIGITS, backend.pre_tokenizer])
    ready: PreTrainedTokenizerBase = tokenizer
    return ready


def _metadata(path: Path, name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the metadata of a file and the names of its tensors."""
    with parsing(ModelError, f"model {name}: {path} cannot be read", "download it again"):
        found: tuple[dict[str, Any], tuple[str, ...]] = read_gguf_metadata(str(path))
    return found
