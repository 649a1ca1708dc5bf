"""Make the peers' environments: `python benchmarks/peers/install.py [NAME...]`, by default all that are not there yet.

Each is a plain virtual environment of the Python that runs this, filled by pip from the pinned requirements; pip's own
settings (PIP_INDEX_URL and the like) apply. On a machine without a GPU, point it to CPU builds of torch first: the
default ones bring gigabytes of CUDA libraries.
"""

import argparse
import shutil
import subprocess
import sys
import venv

from registry import INSTALLED, PEERS, Peer

# Demanded by kronfluence and bergson, used by neither. Their wheels only fit the very build of torch that they were
# made with, and where they do not fit transformers fails on their import.
UNUSED = ("torchvision", "torchaudio")


def main() -> int:
    """Install, and say where."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(peer.name for peer in PEERS))
    names = parser.parse_args().names
    if unknown := set(names) - {peer.name for peer in PEERS}:
        parser.error(f"no peer is called {sorted(unknown)[0]}")
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        if peer.environment_python() is None:
            install(peer)
        print(f"{peer.name} {peer.version}: {peer.environment}")
    return 0


def install(peer: Peer) -> None:
    """From nothing, so that an installation that was broken off leaves no trace."""
    venv.create(peer.environment, with_pip=True, clear=True)
    python = peer.environment / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "-r", peer.requirements], check=True)
    for package in UNUSED:
        present = subprocess.run([python, "-m", "pip", "show", package], capture_output=True, check=False)
        usable = subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False)
        if present.returncode == 0 and usable.returncode != 0:
            subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", package], check=True)
    shutil.copyfile(peer.requirements, peer.environment / INSTALLED)


if __name__ == "__main__":
    sys.exit(main())
