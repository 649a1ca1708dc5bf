"""Long trials of stored data: `python -m gradsim_assets_tests.endurance damage` (or kills, together, disks, writes).

Each works on copies of a small finished study with three settings, a trained model, an index and a report. It prints
what it did, and every case in which the study did not come back as it was; its exit status is 1 if there was one.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq
from polars.testing import assert_frame_equal

from gradsim.tables import State, Store
from gradsim.text_generation.journal import read_journal
from gradsim_assets_tests.gradsim.tables.conftest import stored_places
from gradsim_assets_tests.gradsim_assets.conftest import _run_tiny
from gradsim_assets_tests.web_ui import serve
from gradsim_assets_tests.workplace import Workplace

STUDY = "tiny"
faults: list[str] = []


def fault(text: str) -> None:
    faults.append(text)
    print(f"FAULT {text}", flush=True)


def require_same(place: Workplace, base: Workplace, what: str) -> None:
    """Compare all tables with those of the undisturbed study; the last bits depend on which samples share a batch."""
    store, expected = place.store(), base.store()
    others = [store.path(*each) for each in stored_places(expected) if store.state(*each) is not State.FRESH]
    if others:
        fault(f"{what}: {len(others)} files are not fresh, such as {others[0]}")
        return
    for key, partition in stored_places(expected):
        if store.path(key).suffix != ".parquet":
            continue
        rows, wanted = store.read(key, [partition]), expected.read(key, [partition])
        try:
            assert_frame_equal(rows, wanted, rel_tol=1e-3, abs_tol=1e-5)
        except AssertionError as error:
            fault(f"{what}: {key} {partition or ''}: {' '.join(str(error).split())[:300]}")
    for left in [*place.data.rglob("*.partial"), *place.data.rglob(".model.*")]:
        fault(f"{what}: {left} is left")


def command(place: Workplace, what: str, *arguments: str, **variables: str) -> str:
    """Run `gradsim`; a failure is a fault."""
    try:
        output = place.gradsim(*arguments, fails=False, **variables)
    except AssertionError as error:
        output = str(error)
        fault(f"{what}: gradsim {' '.join(arguments)}: {output[-2000:]}")
    return output


# -- damage ------------------------------------------------------------------------------------


def flipped(path: Path, choose: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def truncated(path: Path, choose: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: choose.randrange(len(content))])


def edited(path: Path, choose: random.Random) -> None:
    """Change one row and keep the footer's provenance; of files that are no tables, change a byte."""
    if path.suffix != ".parquet" or not (rows := pl.read_parquet(path)).height:
        flipped(path, choose)
        return
    provenance = pq.read_metadata(path).metadata[b"gradsim"].decode()
    place = choose.randrange(rows.height)
    pl.concat([rows[:place], rows[place + 1 :]]).write_parquet(path, metadata={"gradsim": provenance})


def swapped_pairs(store: Store) -> list[tuple[Path, Path]]:
    """Return every pair of partitions of a table."""
    groups = [[store.path(node.key, each) for each in store.partitions(node.key)] for node in store.lineage]
    return [pair for group in groups for pair in itertools.combinations(group, 2)]


def damage(base: Workplace, choose: random.Random, options: argparse.Namespace) -> None:
    """Flip bits of, truncate, edit and swap files of all kinds; each must be named, and computed again by a run."""
    counts: Counter[str] = Counter()
    journals = {path: read_journal(path) for path in (base.data / ".journals").rglob("*.jsonl")}
    pairs = swapped_pairs(base.store())
    wanted = {"flipped": options.flips, "truncated": options.flips // 7, "edited": options.flips // 7}
    changes: Mapping[str, Callable[[Path, random.Random], None]] = {
        "flipped": flipped,
        "truncated": truncated,
        "edited": edited,
    }
    number = 0
    while pairs or any(counts[kind] < wanted[kind] for kind in wanted):
        number += 1
        place = base.copy(Path(tempfile.mkdtemp(prefix="damage-", dir=base.folder.parent)))
        store = place.store()
        files = [path for path in place.data.rglob("*") if path.is_file() and path.stat().st_size]
        changed = set(choose.sample(files, len(files) * 2 // 3))
        kind = next((name for name in wanted if counts[name] < wanted[name]), "swapped")
        if kind == "swapped":
            changed = set()
            for one, two in [pair for pair in pairs if not changed & set(pair)]:
                mine = [place.data / path.relative_to(base.data) for path in (one, two)]
                if changed & set(mine):
                    continue
                first, second = (path.read_bytes() for path in mine)
                mine[0].write_bytes(second)
                mine[1].write_bytes(first)
                changed |= set(mine)
                pairs.remove((one, two))
        else:
            for path in changed:
                changes[kind](path, choose)
        counts[kind] += len(changed)
        counts.update(f"{kind} {path.suffix}" for path in changed)

        named = command(place, f"round {number}", "status", STUDY)
        for key, partition in stored_places(store):
            path = store.path(key, partition)
            damaged = path in changed or (key.name == "model" and changed & set(store.model_folder.iterdir()))
            if damaged and store.state(key, partition) not in {State.CORRUPT, State.MISSING}:
                fault(f"round {number}: {path} is {store.state(key, partition)} although it was {kind}")
            if path in changed and f"corrupt: {path}" not in named:
                fault(f"round {number}: gradsim status does not name {path}, which was {kind}")
        for path, entries in journals.items():
            for entry, answer in read_journal(place.data / path.relative_to(base.data)).items():
                if entries.get(entry) != answer:
                    fault(f"round {number}: {path} has another answer, {answer}")
        command(place, f"round {number}", "run", STUDY)
        require_same(place, base, f"round {number}")
        shutil.rmtree(place.folder)
        print(f"round {number}: {len(changed)} files {kind}, {len(faults)} faults so far", flush=True)
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))


# -- kills -------------------------------------------------------------------------------------


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


def wait(condition: Callable[[], bool], what: str, seconds: float = 180, pause: float = 0.2) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(pause)


def kills(base: Workplace, choose: random.Random, options: argparse.Namespace) -> None:
    """Kill processes of commands and of the web UI at random moments; then a run must complete the study."""
    victims: Counter[str] = Counter()
    for number in range(options.studies):
        place = base.copy(Path(tempfile.mkdtemp(prefix="kills-", dir=base.folder.parent)))
        for name in choose.sample(["queries", "candidates", "dot_products", "query_self", "results", "analysis"], 3):
            shutil.rmtree(place.data / STUDY / "word_dropout" / name, ignore_errors=True)
        if choose.random() < 0.5:
            shutil.rmtree(place.data / STUDY / "model")
        for _ in range(options.kills // options.studies - 1):
            process = place.start("gradsim", "run", STUDY, output=subprocess.DEVNULL)
            time.sleep(choose.uniform(1, options.seconds))
            relatives = family(process)
            if relatives:
                victim = choose.choice(relatives)
                victims["command" if victim.pid == process.pid else "job or its server"] += 1
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
            process.wait(300)
            _, alive = psutil.wait_procs(relatives, timeout=30)
            for each in alive:
                fault(f"study {number}: {each} lives on")
            end(alive)
            require_true_status(place, f"study {number}")
        with (
            suppress(AssertionError, psutil.NoSuchProcess),
            serve(place, wait) as ui,
        ):  # one of its processes ends with a signal
            ui.launch_backfill([(STUDY, "word_dropout", "dot_products")], None)
            time.sleep(choose.uniform(1, options.seconds))
            relatives = family(ui.process)
            victim = choose.choice(relatives)
            victims["web server or daemon" if victim in relatives[:3] else "run of the daemon"] += 1
            victim.kill()
            time.sleep(1)
            end(relatives)
        require_true_status(place, f"study {number}")
        command(place, f"study {number}", "run", STUDY)
        require_same(place, base, f"study {number}")
        print(f"study {number}: {sum(victims.values())} kills, {len(faults)} faults so far", flush=True)
        shutil.rmtree(place.folder)
    print(dict(victims))


def require_true_status(place: Workplace, what: str) -> None:
    """Every file that counts as fresh can be read."""
    store = place.store()
    for key, partition in stored_places(store):
        if store.state(key, partition) is State.CORRUPT:
            fault(f"{what}: {store.path(key, partition)} is corrupt")
        elif store.state(key, partition) is State.FRESH and store.path(key).suffix == ".parquet":
            store.read(key, [partition])
    command(place, what, "status", STUDY)


# -- several at once ---------------------------------------------------------------------------


def together(base: Workplace, choose: random.Random, options: argparse.Namespace) -> None:
    """Two runs at once; a run beside a backfill; `--force` beside both."""
    for number in range(options.rounds):
        place = base.copy(Path(tempfile.mkdtemp(prefix="together-", dir=base.folder.parent)))
        place.delete(f"{STUDY}/word_dropout/*/*", f"{STUDY}/model_generated/queries/*", f"{STUDY}/report.html")
        with serve(place, wait) if number % 4 == 3 else nothing() as ui:
            if ui:
                ui.launch_backfill([(STUDY, "word_dropout", "queries")], None)
            runs: list[tuple[str, ...]] = [("run", STUDY), ("run", STUDY)]
            if number % 2:
                runs.append(("run", STUDY, "--setting", "word_dropout", "--force"))
            processes = []
            for arguments in runs:
                processes.append((arguments, place.start("gradsim", *arguments)))
                time.sleep(choose.uniform(0, 3))
            for arguments, process in processes:
                output, _ = process.communicate(timeout=900)
                if process.returncode or "Traceback" in output or "locked" in output:
                    fault(f"round {number}: {arguments} ended with {process.returncode}: {output[-2000:]}")
        command(place, f"round {number}", "run", STUDY)
        require_same(place, base, f"round {number}")
        print(f"round {number}: {len(runs)} runs{' and a backfill' if ui else ''}, {len(faults)} faults", flush=True)
        shutil.rmtree(place.folder)


@contextmanager
def nothing() -> Iterator[None]:
    yield None


# -- disks -------------------------------------------------------------------------------------


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of this size on a folder, with the folder's content."""
    kept = folder.with_name(f"{folder.name} kept")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(kept)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Fill a file system up to some bytes."""
    status = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(b"x" * max(0, status.f_bavail * status.f_bsize - left))
    return filler


def failing_writes(base: Workplace, choose: random.Random, options: argparse.Namespace) -> None:
    """Run while a quarter of all writes to the data root fail, again and again; then run undisturbed."""
    library = base.folder.parent / "failing.so"
    source = Path(__file__).with_name("failing_writes.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    for number in range(3):
        place = base.copy(Path(tempfile.mkdtemp(prefix="writes-", dir=base.folder.parent)))
        place.delete(f"{STUDY}/{choose.choice(list(place.study().settings))}/*/*", f"{STUDY}/report.html")
        attempts, status, output = 0, 1, ""
        while status and attempts < 6:
            attempts += 1
            process = place.start("gradsim", "run", STUDY, LD_PRELOAD=str(library), FAIL_UNDER=str(place.data))
            output, _ = process.communicate(timeout=900)
            status = process.returncode
            if "Traceback" in output or (status and "error" not in output.lower()):
                fault(f"study {number}: {output[-2000:]}")
            require_true_status(place, f"study {number}")
        command(place, f"study {number}", "run", STUDY)
        require_same(place, base, f"study {number}")
        last = " ".join(output.split())[-150:]
        print(
            f"study {number}: {attempts} attempts, {len(faults)} faults so far; the last one said: {last}", flush=True
        )
        shutil.rmtree(place.folder)


def disks(base: Workplace, choose: random.Random, options: argparse.Namespace) -> None:
    """Run on file systems that are full or read-only: the data root, Dagster's storage, the temporary folder."""
    for number, (name, how) in enumerate(itertools.product(["data", "home", "temporary"], ["full", "read-only"])):
        for left in (0, 60_000, 400_000) if how == "full" else (0,):
            place = base.copy(Path(tempfile.mkdtemp(prefix="disks-", dir=base.folder.parent)))
            place.delete(f"{STUDY}/word_dropout/*/*")
            temporary = place.folder / "temporary"
            temporary.mkdir()
            folder = {"data": place.data, "home": place.home, "temporary": temporary}[name]
            what = f"{name} {how}, {left:,} bytes left"
            with disk(folder, "64m"):
                before = place.digests()
                filler = fill(folder, left) if how == "full" else None
                if how == "read-only":
                    remount(folder, "ro")
                process = place.start("gradsim", "run", STUDY, TMPDIR=str(temporary))
                output, _ = process.communicate(timeout=900)
                print(f"{number} {what}: {process.returncode}: {output.strip().splitlines()[-1][:200]}", flush=True)
                if "Traceback" in output:
                    fault(f"{what}: {output[-3000:]}")
                if process.returncode and not any(each in output for each in ("space", "Read-only", "read-only")):
                    fault(f"{what}: does not say why: {output[-1500:]}")
                now = place.digests()
                lost = [path for path, digest in before.items() if not path.startswith(".") and path not in now]
                if lost:
                    fault(f"{what}: lost {lost[:5]}")
                command(place, what, "status", STUDY, TMPDIR=str(temporary))
                if filler:
                    filler.unlink()
                else:
                    remount(folder, "rw")
                command(place, what, "run", STUDY, TMPDIR=str(temporary))
                require_same(place, base, what)
            shutil.rmtree(place.folder)


TRIALS = {"damage": damage, "kills": kills, "together": together, "disks": disks, "writes": failing_writes}


def main() -> int:
    """Run a trial, and print the faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flips", type=int, default=2000, help="flipped bits; a seventh as many truncations and edits")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--studies", type=int, default=10, help="studies among which the kills are distributed")
    parser.add_argument("--seconds", type=float, default=25, help="longest time before a kill")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of several runs at once")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gradsim-endurance-") as temporary:
        folder = Path(temporary) / "base"
        folder.mkdir()
        _run_tiny(folder)
        TRIALS[options.trial](Workplace(folder), random.Random(options.seed), options)
    print(f"{len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
