"""A job that does what the variable BEHAVIOUR says: Python code that finds the job file and may leave a result."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

__all__ = ["job", "leave", "signal"]

path = Path(sys.argv[1])


def job() -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def leave(**changes: Any) -> None:
    result = {"partitions": job()["partitions"], "fingerprints": job()["fingerprints"], **changes}
    path.with_suffix(".result.json").write_text(json.dumps(result), encoding="utf-8")


exec(os.environ["BEHAVIOUR"])
