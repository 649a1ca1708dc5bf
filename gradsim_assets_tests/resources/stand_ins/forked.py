"""A script in a process of its own, which outlives the job that starts it.

python -m forked ID_FILE OUTPUT SCRIPT ARGUMENTS
"""

import os
import runpy
import sys
from pathlib import Path

id_file, output, *command = sys.argv[1:]
if process := os.fork():
    Path(id_file).write_text(str(process), encoding="utf-8")
else:
    os.setsid()
    with Path(output).open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
