"""Studies of tests: in memory, and as the text of a study file."""

from pathlib import Path
from typing import Any

import yaml

from gradsim.study import Study


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def study_text(definition: dict[str, Any]) -> str:
    """A definition as YAML without anchors, which study files may not have."""
    return str(yaml.dump(definition, Dumper=_Dumper, sort_keys=False))


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
