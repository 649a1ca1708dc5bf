"""Model files, from a local folder or downloaded from the Hub into its cache.

All other code loads from the folder returned here, so an unavailable model fails early and in one place, and the
revision in use is known.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub import errors as hub_errors
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging
from transformers.utils.logging import disable_progress_bar

from gradsim.errors import ModelError, first_line, parsing
from gradsim.models.gguf_file import load_gguf_tokenizer, require_readable

_DESCRIPTION = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = "*.safetensors"
_PICKLED = "*.bin"
_GGUF = "*.gguf"

# Names of the number of blocks. Building a model with more takes minutes to hours, even without weights.
_BLOCKS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_MOST_BLOCKS = 2000

ADAPTER_FILE = "adapter_config.json"
"""Configuration of an adapter, written by PEFT and detected by transformers."""

# JSON files that transformers reads, each an object.
_CONFIGURATIONS = ("config.json", "generation_config.json")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json")
_PARTS_OF_TOKENIZERS = (
    "tokenizer*",
    "special_tokens_map.json",
    "*_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
)

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (hub_errors.GatedRepoError, "the repository is gated"),
    (hub_errors.RepositoryNotFoundError, "there is no such repository"),
    (hub_errors.RevisionNotFoundError, "there is no such revision"),
    (hub_errors.LocalEntryNotFoundError, "no network, and it is not in the cache"),
    (hub_errors.HFValidationError, "not a valid Hub name"),
)


class Fetched(NamedTuple):
    """A model's folder and the identity of its contents.

    Attributes:
        folder: folder with configuration, tokenizer and weights.
        revision: commit on the Hub, or SHA-256 of a local folder's files.
    """

    folder: Path
    revision: str


def fetch(name: str, revision: str | None = None, *, weights: bool = True, gguf: str | None = None) -> Fetched:
    """Return a model's folder, after downloading missing files from the Hub.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub; ignored for a local folder.
        weights: whether to download the weights, too.
        gguf: GGUF file in the folder that contains weights, configuration and, unless there is a tokenizer.json, the
            tokenizer; it is always downloaded.

    Raises:
        ModelError: The model is not available, lacks weights as safetensors or its GGUF file, has malformed files,
            needs its own code, or contains an adapter, or the package gguf is not installed.
    """
    folder = _description_folder(name, revision, gguf)
    if folder == Path(name):
        if gguf is None:
            _require_weights(folder, name)
        of_weights = (_WEIGHTS, _PICKLED) if gguf is None else (gguf,)
        return fetch_files(name, revision, (*_DESCRIPTION, *of_weights), kind="model")
    if weights and gguf is None:
        folder = _download(name, revision, (_WEIGHTS,))
        _require_weights(folder, name)
    return Fetched(folder, folder.name)


def fetch_files(name: str, revision: str | None, patterns: tuple[str, ...], *, kind: str) -> Fetched:
    """Return a folder with the files that match patterns, after downloading missing ones from the Hub.

    Args:
        name: local folder, or name on the Hub.
        revision: commit, tag or branch on the Hub; ignored for a local folder.
        patterns: patterns of file names.
        kind: what is fetched, in error messages.

    Raises:
        ModelError: The repository is not available, or a file cannot be read.
    """
    if not _is_folder(name):
        folder = _download(name, revision, patterns, kind)
        return Fetched(folder, folder.name)
    folder = Path(name)
    with parsing(ModelError, f"{kind} {name}: its files cannot be read", f"make {folder} readable"):
        return Fetched(folder, _digest(folder, patterns))


def load_tokenizer(
    name: str, revision: str | None = None, chat_template: str | None = None, *, gguf: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub.
        chat_template: Jinja text that replaces the tokenizer's chat template; None keeps it.
        gguf: see `fetch`.

    Raises:
        ModelError: The tokenizer is not available or cannot be loaded.
    """
    folder = _description_folder(name, revision, gguf)
    _require_objects(folder, name, _TOKENIZER_FILES)
    with parsing(ModelError, f"model {name}: its tokenizer cannot be loaded", f"check its files in {folder}"):
        tokenizer: PreTrainedTokenizerBase = (
            load_gguf_tokenizer(folder / gguf, name)
            if gguf and not (folder / "tokenizer.json").is_file()
            else AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a model's tokenizer, chat template included, between folders."""
    for path in {path for pattern in _PARTS_OF_TOKENIZERS for path in source.glob(pattern)}:
        shutil.copyfile(path, target / path.name)


def read_configuration(name: str, revision: str | None = None, *, gguf: str | None = None) -> PreTrainedConfig:
    """Load the configuration of a model, without its weights.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub.
        gguf: see `fetch`.

    Raises:
        ModelError: The model is not available, or transformers does not support its architecture.
    """
    folder = _description_folder(name, revision, gguf)
    path = folder / (gguf or "config.json")
    with parsing(ModelError, f"model {name}: its configuration cannot be read", f"check {path}"):
        configuration: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, **gguf_choices(gguf)
        )
    return configuration


def _description_folder(name: str, revision: str | None, gguf: str | None) -> Path:
    """Return the folder with all files but the weights, after checking those that transformers would read."""
    patterns = _DESCRIPTION if gguf is None else (*_DESCRIPTION, gguf)
    folder = Path(name) if _is_folder(name) else _download(name, revision, patterns)
    if gguf is not None:
        require_readable(folder / gguf, name)
    _require_no_adapter(folder, name)
    _require_objects(folder, name, _CONFIGURATIONS)
    return folder


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than the name of a file may be
        return False


def _download(name: str, revision: str | None, patterns: tuple[str, ...], kind: str = "model") -> Path:
    try:
        # Top-level files only: subfolders contain the same weights in other formats.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except (OSError, hub_errors.HFValidationError) as error:
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), first_line(error))
        raise ModelError(
            f"{kind} {name}: not a local folder, and not available from the Hub ({reason}); check its spelling, "
            "revision and the network, set HF_TOKEN if it is gated, or download it beforehand"
        ) from error
    return Path(folder)


def _require_no_adapter(folder: Path, name: str) -> None:
    """Reject an adapter: transformers would load it into the model although the configuration does not mention it."""
    if (folder / ADAPTER_FILE).is_file():
        raise ModelError(
            f"model {name}: {folder} contains an adapter ({ADAPTER_FILE}); set `model.name` to its base model and "
            "`model.adapter` to the adapter, in folders of their own"
        )


def _require_objects(folder: Path, name: str, files: Iterable[str]) -> None:
    """Reject files that are not JSON objects, and a model that transformers could only run with the model's own code.

    transformers ignores some malformed files, and does not name others.
    """
    for path in (folder / file for file in files if (folder / file).exists()):
        with parsing(ModelError, f"model {name}: {path} is not a JSON object", "download or save the model again"):
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError(f"found {type(content).__name__}")
        if path.name == "config.json":
            _require_supported(content, name)


def _require_supported(content: Mapping[str, Any], name: str) -> None:
    """Reject a configuration of a model that needs its own code, or is absurdly deep."""
    if "auto_map" in content and str(content.get("model_type")) not in CONFIG_MAPPING:
        raise ModelError(
            f"model {name}: its config.json names code of the model (auto_map), which is never run; "
            "choose a model that transformers supports itself"
        )
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        for key in _BLOCKS:
            if isinstance(blocks := part.get(key), int) and blocks > _MOST_BLOCKS:
                raise ModelError(
                    f"model {name}: its config.json has {blocks:,} blocks ({key}), more than {_MOST_BLOCKS:,}; "
                    "correct it"
                )


def _require_weights(folder: Path, name: str) -> None:
    if any(folder.glob(_WEIGHTS)):
        return
    if there := sorted(path.name for path in folder.glob(_GGUF)):
        raise ModelError(f"model {name}: {folder} contains no {_WEIGHTS}, but {there[0]}; set `gguf: {there[0]}`")
    if folder == Path(name) and not any(folder.glob(_PICKLED)):
        raise ModelError(f"model {name}: {folder} contains no weights ({_WEIGHTS}); download or train it again")
    raise ModelError(
        f"model {name}: it has no weights as safetensors, and pickled ones ({_PICKLED}) are refused because they can "
        "contain code; set `gguf` if it has a GGUF file, or if you trust the pickled ones, convert them: "
        f"AutoModelForCausalLM.from_pretrained({name!r}).save_pretrained(FOLDER)"
    )


def _digest(folder: Path, patterns: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def gguf_choices(gguf: str | None) -> dict[str, str]:
    """Return the keyword argument by which transformers reads a GGUF file of the folder."""
    return {"gguf_file": gguf} if gguf else {}


def hide_progress_bars() -> None:
    """Disable transformers' progress bars, which would garble log output."""
    disable_progress_bar()
    gguf_reader: Any = modeling_gguf_pytorch_utils
    gguf_reader.tqdm = logging.tqdm  # otherwise that of tqdm itself, which the line above does not disable
