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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
