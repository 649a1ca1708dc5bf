"""A model's files: in a local folder, or from the Hub into its cache.

Everything is loaded from the folder that is found here, so that a name that cannot be had fails at once and in one
place, and the revision that was used is known.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors as hub_errors
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from gradsim.errors import ModelError

_DESCRIPTION = ("*.json", "*.jinja", "*.model", "*.txt")
_WEIGHTS = ("*.safetensors", "*.bin")  # in order of preference
_ADAPTER = "adapter_config.json"  # PEFT's, which is what transformers looks for

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (hub_errors.GatedRepoError, "it is gated"),
    (hub_errors.RepositoryNotFoundError, "there is no such repository"),
    (hub_errors.RevisionNotFoundError, "there is no such revision"),
    (hub_errors.LocalEntryNotFoundError, "no network, and it is not in the cache"),
    (hub_errors.HFValidationError, "the Hub allows no such name"),
)


class Fetched(NamedTuple):
    """A model's folder and what identifies its contents.

    Attributes:
        folder: holds configuration, tokenizer and weights.
        revision: the Hub's commit, or the SHA-256 over a local folder's files.
    """

    folder: Path
    revision: str


def fetch(name: str, revision: str | None = None, *, weights: bool = True) -> Fetched:
    """Find a model's files, downloading what the Hub's cache lacks.

    Args:
        name: a local folder, or a name on the Hub.
        revision: the Hub's commit, tag or branch; a local folder has none.
        weights: whether they are needed here, too.

    Raises:
        ModelError: a model that cannot be had, one without weights where they are needed, or an adapter.
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
    """The tokenizer of a model.

    Args:
        name: a local folder, or a name on the Hub.
        revision: the Hub's commit, tag or branch.

    Raises:
        ModelError: a tokenizer that cannot be had or read.
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
    """The configuration of a model, without its weights.

    Args:
        name: a local folder, or a name on the Hub.
        revision: the Hub's commit, tag or branch.

    Raises:
        ModelError: a model that cannot be had, or one of a kind that transformers does not know.
    """
    folder = _description_folder(name, revision)
    try:
        configuration: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model {name}: its configuration cannot be read ({first_line(error)}); check its config.json"
        ) from error
    return configuration


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _description_folder(name: str, revision: str | None) -> Path:
    folder = Path(name) if Path(name).is_dir() else _download(name, revision, _DESCRIPTION)
    _require_no_adapter(folder, name)
    return folder


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        # Only files at the repository's top: others are the same weights in other formats.
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except (OSError, hub_errors.HFValidationError) as error:
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), first_line(error))
        raise ModelError(
            f"model {name}: not a folder, and not to be had from the Hub ({reason}); check its spelling, revision and "
            "the network, set HF_TOKEN if it is gated, or download it beforehand"
        ) from error
    return Path(folder)


def _require_no_adapter(folder: Path, name: str) -> None:
    """Refuse an adapter: transformers would put it into the model, whose configuration says nothing of it."""
    if (folder / _ADAPTER).is_file():
        raise ModelError(
            f"model {name}: {folder} holds an adapter ({_ADAPTER}); merge it into its model "
            "(PEFT's merge_and_unload, then save_pretrained), or remove it"
        )


def _require_weights(folder: Path, name: str) -> None:
    if not any(path for pattern in _WEIGHTS for path in folder.glob(pattern)):
        raise ModelError(f"model {name}: {folder} holds no weights (*.safetensors); download or train it again")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _DESCRIPTION + _WEIGHTS for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def hide_progress_bars() -> None:
    """Turn off transformers' own progress bars, which would break the lines of a log."""
    disable_progress_bar()
