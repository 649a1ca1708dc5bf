"""Partitions of a study's assets: ranges of query positions."""

import dagster as dg

from gradsim.study import Study


def query_ranges(study: Study) -> dg.StaticPartitionsDefinition:
    """One partition a range, for example `0000-0099`; static, because a study states its number of samples."""
    return dg.StaticPartitionsDefinition([partition.key for partition in study.partitions])
