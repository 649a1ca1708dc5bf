"""The same run by dagster-slurm's client as it is: what ours corrects must still be wrong there, or can go here.

python stock_driver.py PAYLOAD OUTCOME

The partition is the payload's name.
"""

import json
import os
import sys
from pathlib import Path

import dagster as dg
from dagster_slurm import BashLauncher, SlurmPipesClient, SlurmQueueConfig, SlurmResource, SSHConnectionResource

payload, outcome_file = map(Path, sys.argv[1:])

# As the client wants an environment to look like.
deployed = outcome_file.parent / "deployed"
deployed.mkdir(exist_ok=True)
if not (deployed / "env").exists():
    (deployed / "env").symlink_to(sys.prefix)
(deployed / "activate.sh").write_text(f"export PATH='{deployed}/env/bin':$PATH\n", encoding="utf-8")

client = SlurmPipesClient(
    SlurmResource(
        ssh=SSHConnectionResource.from_env(),
        queue=SlurmQueueConfig(partition=os.environ["SLURM_PARTITION"], cpus=1, mem="300M", time_limit="00:10:00"),
        remote_base=os.environ["SLURM_REMOTE_BASE"],
    ),
    BashLauncher(),
    cleanup_on_failure=False,
    pre_deployed_env_path=str(deployed),
)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["A", "B"]))
def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    invocation = client.run(context=context, payload_path=str(payload), poll_timeout=3600)
    return invocation.get_materialize_result(implicit_materialization=True)


with dg.DagsterInstance.get() as instance:
    run = dg.materialize([table], partition_key=payload.stem, instance=instance, raise_on_error=False)
outcome_file.write_text(json.dumps({"materialized": len(run.get_asset_materialization_events())}), encoding="utf-8")
