"""Studies of tests: in memory, and as the text of a study file."""

from pathlib import Path
from typing import Any

import yaml

from gradsim.study import Study


def study_text(definition: dict[str, Any]) -> str:
    """A definition as YAML without anchors, which `yaml` writes for objects that occur twice."""
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    return str(yaml.dump(definition, Dumper=dumper, sort_keys=False))


def two_partitions(folder: Path) -> Study:
    """The study `mine` of one setting, with four samples in two partitions."""
    originals = folder / "originals.jsonl"
    originals.write_text("{}")
    return Study.model_validate(
        {
            "name": "mine",
            "dataset": {"path": originals},
            "samples": 4,
            "model": {"name": "org/model"},
            "settings": {"dropped": {"method": "word_dropout"}},
            "partition_size": 2,
        }
    )
