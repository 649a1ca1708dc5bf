"""Detection of seven faults of rewritten texts, without a model.

| module | contents |
| --- | --- |
| `registry` | faults by name; `find_faults` for one text |
| `table` | `fault_table`: faults of many queries |
| `endings` | empty and truncated texts |
| `refusals` | refusals |
| `execution` | prompts that were executed instead of rewritten; uses `requests` and `words` |
| `sameness` | unchanged texts |
| `language` | language identification |
| `lengths` | length ratios |
"""

from gradsim.queries.quality.registry import FAULTS, find_faults
from gradsim.queries.quality.rewrite import Rewrite
from gradsim.queries.quality.table import FAULT_TABLE, fault_table
from gradsim.study.settings import LengthBounds

__all__ = ["FAULTS", "FAULT_TABLE", "LengthBounds", "Rewrite", "fault_table", "find_faults"]
