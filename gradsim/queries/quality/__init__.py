"""Detection of seven faults of rewritten texts, without a model.

| module | contents |
| --- | --- |
| `registry` | faults by name; `find_faults` for one text |
| `table` | `fault_table`: faults of many queries |
| `rewrite` | a rewritten text; empty, truncated and unchanged texts, and length ratios |
| `refusals` | refusals |
| `execution` | prompts that were executed instead of rewritten; uses `requests` and `words` |
| `language` | language identification |
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
