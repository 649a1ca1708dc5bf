"""A study that tests build in memory, without its files being read."""

from pathlib import Path

from gradsim.study import Study


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
