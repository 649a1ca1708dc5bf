"""Study a pretrained model on real LIMA samples: `python benchmarks/real_model.py`. Prints cost, accuracy and audit.

Needs SmolLM2 (`make smollm2`) and the reference data (GRADSIM_GOLDEN). Tables are written to --data, or to a temporary
folder named at the end; a second run computes what is missing there.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
from measuring import Row, table
from smollm2 import INSTALL, smollm2_folder

from gradsim.environment import project_root, read_environment
from gradsim.study import load_study
from gradsim.tables import Store
from gradsim.tables.lineage import AUDIT

COLUMNS = {
    "setting": "setting",
    "queries": "queries",
    "tokens": "tokens a sample",
    "loss": "loss (nats)",
    "full_gradient": "full gradient",
    "sjlt": "sjlt",
    "bm25": "BM25",
    "answer_length": "length alone",
    "chance": "chance",
    "audit": "audit: largest error",
}


def main() -> int:
    """Run the studies, and print what each took and found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100, help="first samples for word dropout; 0, here and below: none")
    parser.add_argument("--trained", type=int, default=30, help="first samples that the model is fine-tuned on")
    parser.add_argument("--rewritten", type=int, default=20, help="first samples that the model rewrites and answers")
    parser.add_argument("--data", type=Path, help="data root; default: a new temporary folder")
    options = parser.parse_args()
    data = options.data or Path(tempfile.mkdtemp(prefix="gradsim-real-model-"))
    golden = Path(os.environ.setdefault("GRADSIM_GOLDEN", str(project_root() / "../shared/golden"))).resolve()
    if not (golden / "lima/original.parquet").is_file():
        print(f"{golden}: reference data not found; set GRADSIM_GOLDEN to their folder", file=sys.stderr)
        return 1
    if (folder := smollm2_folder()) is None:
        print(f"SmolLM2 is not installed; {INSTALL}", file=sys.stderr)
        return 1
    os.environ["SMOLLM2"] = str(folder)
    os.environ["GRADSIM_STUDIES"] = str(project_root() / "benchmarks/studies")
    os.environ["GRADSIM_DATA"] = str(data)

    costs, results = [], []
    for study, samples in (
        ("smollm2_word_dropout", options.rows),
        ("smollm2_finetuned", options.trained),
        ("smollm2_rewritten", options.rewritten),
    ):
        if samples == 0:
            continue
        os.environ["MT_SAMPLE_SIZE"] = str(samples)
        cost = observed([str(Path(sys.executable).with_name("gradsim")), "run", study])
        if cost.pop("status"):
            return 1
        store = Store(data, load_study(study, read_environment()))
        costs.append({"study": study, "samples": samples, **cost})
        results += [found(store, setting) for setting in store.study.settings]
    print(table(costs, {key: key for key in costs[0]}))
    print()
    print(table(results, COLUMNS))
    print(f"data: {data}")
    return 0


def observed(command: list[str]) -> Row:
    """Run a command; return its exit status, time, CPU time and the peak memory of its largest process."""
    started, cpu, peak = time.perf_counter(), dict[int, float](), 0
    process = psutil.Popen(command)
    while process.poll() is None:
        # Not from the system's accounts, which leave out the jobs of a process that does not wait for them.
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                cpu[each.pid] = times.user + times.system
                peak = max(peak, each.memory_info().rss)
        time.sleep(1)
    return {
        "status": process.returncode,
        "seconds": time.perf_counter() - started,
        "CPU seconds": sum(cpu.values()),
        "peak memory (GB)": peak / 1e9,
    }


def found(store: Store, setting: str) -> Row:
    """Return accuracies and the largest error of the audit."""
    key = store.lineage.key
    accuracy = store.read(key("accuracy", setting, "analysis")).filter(pl.col("group") == "all")
    controls = store.read(key("controls", setting, "analysis"))
    audit = store.read(key(AUDIT, setting, "analysis"))
    tokens = store.read(key("tokenized", setting))["input_ids"].list.len()
    losses = store.read(key("query_self", setting, "results")).group_by("query_id").agg(pl.first("loss"))["loss"]
    return {
        "setting": setting,
        "queries": len(tokens),
        "tokens": tokens.mean(),
        "loss": losses.mean(),
        **{method.partition("-")[0]: share for method, share in accuracy.select("method", "accuracy").iter_rows()},
        **dict(controls.select("control", "accuracy").iter_rows()),
        "audit": f"{audit.select(pl.col('error').max()).item():.1e}",
    }


if __name__ == "__main__":
    sys.exit(main())
