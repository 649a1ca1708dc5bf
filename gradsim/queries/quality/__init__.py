"""What can be wrong with a rewritten text: seven faults, found without a model.

| module | what it has |
| --- | --- |
| `registry` | the faults by name; `find_faults` of one text |
| `table` | `fault_table`: the faults of many queries |
| `endings` | empty and truncated texts |
| `refusals` | texts in which a model declines |
| `execution` | prompts that were carried out; `requests` knows what asks for something, `words` what is said |
| `sameness` | unchanged texts |
| `language` | which language a text is in |
| `lengths` | what lengths are in order |
"""

from gradsim.queries.quality.registry import FAULTS, find_faults
from gradsim.queries.quality.rewrite import Rewrite
from gradsim.queries.quality.table import FAULT_TABLE, fault_table
from gradsim.study.settings import LengthBounds

__all__ = ["FAULTS", "FAULT_TABLE", "LengthBounds", "Rewrite", "fault_table", "find_faults"]
