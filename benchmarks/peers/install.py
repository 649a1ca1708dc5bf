"""Create the peers' environments: `python benchmarks/peers/install.py [NAME...]`, by default all missing ones.

Each is a plain virtual environment of the Python that runs this script. pip installs the pinned requirements with its
own settings (such as PIP_INDEX_URL). On a machine without a GPU, point pip to CPU builds of torch first; the default
ones include gigabytes of CUDA libraries.
"""

import argparse
import shutil
import subprocess
import sys
import venv

from registry import INSTALLED, PEERS, Peer

# Required by kronfluence and bergson, used by neither. Their wheels match only the torch build that they were compiled
# with; if they do not match, transformers fails to import them.
UNUSED = ("torchvision", "torchaudio")


def main() -> int:
    """Install peers, and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(peer.name for peer in PEERS))
    names = parser.parse_args().names
    if unknown := set(names) - {peer.name for peer in PEERS}:
        parser.error(f"unknown peer {sorted(unknown)[0]}; choose from {', '.join(peer.name for peer in PEERS)}")
    for peer in PEERS:
        if names and peer.name not in names:
            continue
        if peer.environment_python() is None:
            install(peer)
        print(f"{peer.name} {peer.version}: {peer.environment}")
    return 0


def install(peer: Peer) -> None:
    """Install a peer into a cleared environment, so that an interrupted installation leaves no trace."""
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
