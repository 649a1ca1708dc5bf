"""Checks of a cluster, in sequence from the settings to a job on a compute node.

To add a check, write a function of a `Cluster` that returns what it found or raises a `ClusterError`, and list it here.
"""

from resources.diagnosis import Check
from resources.slurm.check.cluster import Cluster
from resources.slurm.check.job import job
from resources.slurm.check.login import login, programs, settings
from resources.slurm.check.places import base, environment, shared_data, torch
from resources.slurm.check.queue import accounting, options, partition

__all__ = ["CHECKS", "JOB_CHECKS", "Cluster"]

CHECKS = (
    Check("settings", settings),
    Check("ssh login", login, needs=("settings",)),
    Check("programs", programs, needs=("ssh login",)),
    Check("partition", partition, needs=("programs",)),
    Check("job options", options, needs=("partition",)),
    Check("accounting", accounting, needs=("programs",)),
    Check("remote base", base, needs=("ssh login",)),
    Check("environment", environment, needs=("ssh login",)),
    Check("torch", torch, needs=("environment",)),
    Check("shared data", shared_data, needs=("ssh login",)),
)

JOB_CHECKS = (Check("a job", job, needs=("job options", "remote base", "environment", "torch", "shared data")),)
