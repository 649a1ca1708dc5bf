"""Measure what users wait for outside computations: `python benchmarks/platform_times.py`.

Times short commands, the definitions that Dagster loads, and the web UI: until it answers, and until it has ended. Once
with the project's studies and once with many studies of many partitions, which need no data. Each measurement runs in
processes of its own; the first round is a warm-up.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from measuring import Row, emit, table

from gradsim.environment import project_root

GRADSIM = str(Path(sys.executable).with_name("gradsim"))

COLUMNS = {
    "what": "what",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
    "megabytes": "MB",
    "spread": "seconds of all rounds",
}

DEFINITIONS = "from gradsim_assets.build import build_definitions; build_definitions().get_repository_def()"

ASSETS = "{ assetNodes { assetKey { path } staleStatus } }"


def main() -> int:
    """Measure in rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds after a warm-up (3)")
    parser.add_argument("--studies", type=int, default=20, help="number of studies in the large workspace (20)")
    parser.add_argument("--partitions", type=int, default=100, help="partitions of each of its studies (100)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gradsim-platform-") as temporary:
        folder = Path(temporary)
        write_studies(folder / "studies", options.studies, options.partitions)
        own = {**os.environ, "DAGSTER_HOME": str(folder / "home")}
        large = {
            **own,
            "GRADSIM_STUDIES": str(folder / "studies"),
            "GRADSIM_DATA": str(folder / "data"),
            "DAGSTER_HOME": str(folder / "large"),
        }
        many = f"{options.studies} studies of {options.partitions} partitions"
        rows = [
            measured("gradsim --help", lambda: command([GRADSIM, "--help"], own), options.rounds),
            measured("gradsim status sample", lambda: command([GRADSIM, "status", "sample"], own), options.rounds),
            measured("definitions", lambda: command([sys.executable, "-c", DEFINITIONS], own), options.rounds),
            measured(
                f"definitions of {many}", lambda: command([sys.executable, "-c", DEFINITIONS], large), options.rounds
            ),
        ]
        for name, variables in (("web UI", own), (f"web UI with {many}", large)):
            rounds = [web(variables) for _ in range(options.rounds + 1)][1:]
            rows += [summary(f"{name}: {part}", [each[part] for each in rounds]) for part in rounds[0]]
    for row in rows:
        emit(row)
    print(table(rows, COLUMNS))
    return 0


def write_studies(folder: Path, studies: int, partitions: int) -> None:
    """Write copies of the bundled study with as many samples as partitions times ten."""
    definition = yaml.safe_load((project_root() / "studies/sample.yaml").read_text(encoding="utf-8"))
    settings = definition["settings"]
    settings["paraphrased"] = {"method": "word_dropout", "every": 3}
    originals = {"path": str(folder / "originals.jsonl")}
    folder.mkdir()
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    lines = [json.dumps({"id": f"s{row}", "messages": messages}) for row in range(10 * partitions)]
    (folder / "originals.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for number in range(studies):
        changed = {**definition, "dataset": originals, "samples": 10 * partitions, "partition_size": 10}
        (folder / f"study_{number}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")


def measured(what: str, run: Callable[[], Row], rounds: int) -> Row:
    """Return the medians of a measurement, after a warm-up."""
    return summary(what, [run() for _ in range(rounds + 1)][1:])


def summary(what: str, rounds: Sequence[Row]) -> Row:
    """Return the medians of rounds, with the seconds of each."""
    medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    return {"what": what, **medians, "spread": ", ".join(f"{each['seconds']:.2f}" for each in rounds)}


def command(arguments: Sequence[str], variables: Mapping[str, str]) -> Row:
    """Run a command; return its seconds and CPU seconds."""
    start = time.monotonic()
    process = subprocess.Popen(arguments, env=variables, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def web(variables: Mapping[str, str]) -> dict[str, Row]:
    """Serve the web UI, ask it for all assets and their marks, and stop it.

    Returns:
        Seconds until the first answer, those of the same question asked again, and those until all processes ended;
        with the first, the memory of the process that holds the definitions.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    start = time.monotonic()
    process = subprocess.Popen(
        [GRADSIM, "web", "--port", str(port)], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not ask(port):
        if process.poll() is not None:
            raise SystemExit("gradsim web failed")
        time.sleep(0.1)
    answered = time.monotonic()
    ask(port)
    again = time.monotonic()
    family = psutil.Process(process.pid).children(recursive=True)
    servers = [each for each in family if "code-server" in each.cmdline() or "grpc" in " ".join(each.cmdline())]
    memory = max((each.memory_info().rss / 1e6 for each in servers), default=None)
    stopped = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    psutil.wait_procs(family, timeout=60)
    return {
        "first answer": {"seconds": answered - start, "megabytes": memory},
        "next answer": {"seconds": again - answered},
        "end": {"seconds": time.monotonic() - stopped},
    }


def ask(port: int) -> bool:
    """Ask the web UI for all assets; return whether it has some."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": ASSETS}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with suppress(OSError), urllib.request.urlopen(request, timeout=300) as response:
        return bool(json.load(response)["data"]["assetNodes"])
    return False


if __name__ == "__main__":
    sys.exit(main())
