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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
