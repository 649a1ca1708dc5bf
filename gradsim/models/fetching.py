"""Model files, from a local folder or downloaded from the Hub into its cache.

All other code loads from the folder returned here, so an unavailable model fails early and in one place, and the
revision in use is known.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors as hub_errors
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from gradsim.errors import ModelError, first_line

_DESCRIPTION = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = ("*.safetensors", "*.bin")  # in order of preference
_ADAPTER = "adapter_config.json"  # written by PEFT, and detected by transformers

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


def fetch(name: str, revision: str | None = None, *, weights: bool = True) -> Fetched:
    """Return a model's folder, after downloading missing files from the Hub.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub; ignored for a local folder.
        weights: whether to download the weights, too.

    Raises:
        ModelError: The model is not available, lacks weights, or contains an adapter.
    """
    folder = Path(name)
    if folder.is_dir():
        _require_no_adapter(folder, name)
        _require_weights(folder, name)
        return Fetched(folder, _digest(folder))
    folder = _description_folder(name, revision)
    if not weights:
        return Fetched(folder, folder.name)
    for pattern in _WEIGHTS:
        folder = _download(name, revision, (pattern,))
        if any(folder.glob(pattern)):
            break
    _require_weights(folder, name)
    return Fetched(folder, folder.name)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub.

    Raises:
        ModelError: The tokenizer is not available or cannot be loaded.
    """
    folder = _description_folder(name, revision)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(
            f"model {name}: its tokenizer cannot be loaded ({first_line(error)}); check its files"
        ) from error
    return tokenizer


def read_configuration(name: str, revision: str | None = None) -> PreTrainedConfig:
    """Load the configuration of a model, without its weights.

    Args:
        name: local folder, or model name on the Hub.
        revision: commit, tag or branch on the Hub.

    Raises:
        ModelError: The model is not available, or transformers does not support its architecture.
    """
    folder = _description_folder(name, revision)
    try:
        configuration: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model {name}: its configuration cannot be read ({first_line(error)}); check its config.json"
        ) from error
    return configuration


def _description_folder(name: str, revision: str | None) -> Path:
    folder = Path(name) if Path(name).is_dir() else _download(name, revision, _DESCRIPTION)
    _require_no_adapter(folder, name)
    return folder


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        # Top-level files only: subfolders contain the same weights in other formats.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except (OSError, hub_errors.HFValidationError) as error:
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), first_line(error))
        raise ModelError(
            f"model {name}: not a local folder, and not available from the Hub ({reason}); check its spelling, "
            "revision and the network, set HF_TOKEN if it is gated, or download it beforehand"
        ) from error
    return Path(folder)


def _require_no_adapter(folder: Path, name: str) -> None:
    """Reject an adapter: transformers would load it into the model although the configuration does not mention it."""
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"model {name}: {folder} contains an adapter ({_ADAPTER}); merge it into its model "
            "(PEFT's merge_and_unload, then save_pretrained), or remove it"
        )


def _require_weights(folder: Path, name: str) -> None:
    if not any(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        raise ModelError(f"model {name}: {folder} contains no weights (*.safetensors); download or train it again")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DESCRIPTION + _WEIGHTS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def hide_progress_bars() -> None:
    """Disable transformers' progress bars, which would garble log output."""
    disable_progress_bar()
