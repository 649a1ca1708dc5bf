"""Partitions definition of a study's assets: ranges of query positions."""

import dagster as dg

from gradsim.study import Study


def query_ranges(study: Study) -> dg.StaticPartitionsDefinition:
    """Return one partition per range, such as `0000-0099`; static, because the study fixes its number of samples."""
    return dg.StaticPartitionsDefinition([partition.key for partition in study.partitions])
