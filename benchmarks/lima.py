"""Run a whole study on the 988 real LIMA samples: `python benchmarks/lima.py`. Prints time, memory and accuracy.

Needs the reference data (GRADSIM_GOLDEN). Tables are written to --data, or to a temporary folder named at the end.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gradsim.environment import project_root, read_environment
from gradsim.study import Study, load_study
from gradsim.tables import State, Store

STUDY = "lima_word_dropout"


def main() -> int:
    """Run the study from nothing, and print its cost and its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data root; default: a new temporary folder")
    data = parser.parse_args().data or Path(tempfile.mkdtemp(prefix="gradsim-lima-"))
    golden = Path(os.environ.setdefault("GRADSIM_GOLDEN", str(project_root() / "../shared/golden"))).resolve()
    if not (golden / "lima/original.parquet").is_file():
        print(f"{golden}: reference data not found; set GRADSIM_GOLDEN to their folder", file=sys.stderr)
        return 1
    os.environ["GRADSIM_STUDIES"] = str(project_root() / "benchmarks/studies")
    os.environ["GRADSIM_DATA"] = str(data)

    started = time.perf_counter()
    status = subprocess.run([Path(sys.executable).with_name("gradsim"), "run", STUDY], check=False).returncode
    seconds = time.perf_counter() - started
    if status == 0:
        print(json.dumps(measured(load_study(STUDY, read_environment()), data, seconds), indent=2))
    return status


def measured(study: Study, data: Path, seconds: float) -> dict[str, object]:
    """Return cost and results of the run; every table must exist."""
    store = Store(data, study)
    key = store.lineage.key
    files = [(node.key, partition) for node in store.lineage for partition in store.partitions(node.key)]
    accuracy = store.read(key("accuracy", "word_dropout", "analysis"))
    controls = store.read(key("controls", "word_dropout", "analysis"))
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "files fresh": f"{sum(store.state(*file) is State.FRESH for file in files)} of {len(files)}",
        "parameters": store.read(key("model"))["parameters"].sum(),
        "seconds": round(seconds, 1),
        # Of the largest child process: the partition job, or the training of the model.
        "peak memory (GiB)": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
        "stored (MB)": round(sum(file.stat().st_size for file in data.rglob("*.parquet")) / 1e6, 1),
        "accuracy": {
            f"{row['method']} ({row['group']})": round(row["accuracy"], 4) for row in accuracy.iter_rows(named=True)
        },
        "controls": {row["control"]: round(row["accuracy"], 4) for row in controls.iter_rows(named=True)},
        "data": str(data),
    }


if __name__ == "__main__":
    sys.exit(main())
