"""What a job says, read while it is written."""

import logging
import subprocess
import sys

import dagster as dg

from gradsim.progress import WorkDone
from resources.messages import WORK_DONE, LocalMessageReader

TALK = """
import json, os, sys, time
from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    path = pipes._message_channel._path
    pipes.log.info("before")
    line = json.dumps({"__dagster_pipes_version": "0.1", "method": "log",
                       "params": {"message": "in two pieces", "level": "INFO"}})
    for piece in (line[:40], line[40:] + "\\n"):
        with open(path, "a") as messages:
            messages.write(piece)
        time.sleep(0.3)
    pipes.report_custom_message({"progress": {"what": "tiny gradients", "done": 1, "total": 2, "unit": "samples"}})
    pipes.report_custom_message({"of another": 1})
    for number in range(300):
        pipes.log.info(f"number {number}")
    with open(path, "a") as messages:
        messages.write(line[:40])
    os.kill(os.getpid(), 9)
"""


def test_every_whole_message_arrives_and_half_of_one_is_dropped(capfd, tmp_path):
    heard = []

    class Listener(logging.Handler):
        def emit(self, record):
            heard.append(getattr(record, WORK_DONE, None))

    @dg.logger
    def listening(context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("listening", logging.DEBUG)
        logger.addHandler(Listener())
        return logger

    @dg.asset
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        reader = LocalMessageReader(tmp_path, context.log)
        with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), reader) as pipes:
            environment = {**pipes.get_bootstrap_env_vars(), "PATH": ""}
            subprocess.run([sys.executable, "-c", TALK], env=environment, check=False)
        assert pipes.get_custom_messages() == ({"of another": 1},)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[table], loggers={"listening": listening}).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, run_config={"loggers": {"listening": {}}})
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    expected = [
        "before",
        "in two pieces",
        "tiny gradients: 1 of 2 samples",
        *(f"number {number}" for number in range(300)),
    ]
    assert [message for message in said if message in set(expected)] == expected
    assert [work for work in heard if work] == [WorkDone("tiny gradients", 1, 2, "samples")]
    assert "Traceback" not in capfd.readouterr().err
