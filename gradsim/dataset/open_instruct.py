"""Reference tokenization by open-instruct itself, if its submodule is checked out."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from gradsim.environment import project_root

COLUMNS = ("input_ids_prompt", "input_ids", "labels")


def processor_path() -> Path:
    """Return the path of open-instruct's dataset processor; `git submodule update --init` creates the file."""
    return project_root() / "open-instruct" / "open_instruct" / "dataset_processor.py"


def tokenize(
    samples: Sequence[Sequence[Mapping[str, str]]], tokenizer: PreTrainedTokenizerBase, processor: Path
) -> list[dict[str, list[int]]]:
    """Return token ids and labels from open-instruct's `SFTDatasetProcessor`, configured like gradsim's tokenization.

    Args:
        samples: Messages of each sample.
        tokenizer: Tokenizer of the studied model.
        processor: Path of open-instruct's `dataset_processor.py`.

    Returns:
        Lists of integers under the keys `COLUMNS`, one dictionary per sample.
    """
    module = _load(processor)
    configuration = module.DatasetConfig(
        chat_template="tulu",
        train_only_on_prompt=True,
        sft_messages_key="messages",
        sanity_check=True,  # one process, no cache
    )
    adapted = _ListsOfIds(tokenizer, module.CHAT_TEMPLATES["tulu"])
    # Newer versions require a ground_truth column, which tokenization ignores.
    rows = [{"messages": [dict(message) for message in messages], "ground_truth": ""} for messages in samples]
    made = module.SFTDatasetProcessor(adapted, configuration).tokenize(datasets.Dataset.from_list(rows))
    return [{column: row[column] for column in COLUMNS} for row in made]


class _ListsOfIds:
    """Tokenizer adapter whose `apply_chat_template` returns a list of ids, as open-instruct expects."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer, self._template = tokenizer, template
        self.pad_token_id, self.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool = False) -> list[int]:
        ids: Any = self._tokenizer.apply_chat_template(
            messages, chat_template=self._template, add_generation_prompt=add_generation_prompt, return_dict=False
        )
        return list(ids)


def _load(path: Path) -> ModuleType:
    """Import the module by path, because its package imports training dependencies."""
    name = "open_instruct_dataset_processor"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
