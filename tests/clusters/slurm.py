"""A real Slurm on this machine: controller, login service and several nodes on loopback, each with a pretended GPU.

Needs root and Debian's packages slurm-wlm and munge. Everything lies below one folder, and `stop` ends all of it.
Knows nothing of Dagster.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
CONFIGURATION = """\
ClusterName=pretended
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
KillWait=30
MinJobAge=300
MessageTimeout=5
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=ALL Default=YES PriorityTier=1 MaxTime=UNLIMITED
PartitionName=gpu Nodes=ALL PriorityTier=1 MaxTime=UNLIMITED
PartitionName=cheap Nodes=ALL PriorityTier=1 PreemptMode=CANCEL MaxTime=UNLIMITED
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=off MaxTime=UNLIMITED
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=64000 Gres=gpu:1"


def possible() -> bool:
    """Whether a Slurm can be started here."""
    return os.geteuid() == 0 and all(shutil.which(program, path=_path()) for program in PROGRAMS)


class Cluster:
    """A controller and `nodes` nodes, named node1, node2, ..., that live below `folder`."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.names = folder, [f"node{n + 1}" for n in range(nodes)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs so that its Slurm commands reach this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the cluster, and wait until all nodes are idle."""
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("munge", "state"):
            (folder / name).mkdir(parents=True)
        with contextlib.ExitStack() as probes:
            ports = [_free_port(probes) for _ in range(len(self.names) + 1)]
        nodes = [
            NODE.format(name=name, host=host, port=port)
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        text = CONFIGURATION.format(
            folder=folder, host=host, controller_port=ports[0], nodes="\n".join(nodes)
        )
        (folder / "slurm.conf").write_text(text)
        gres = [f"NodeName={name} Name=gpu File=/dev/null" for name in self.names]
        (folder / "gres.conf").write_text("\n".join(gres) + "\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        places = {
            "socket": "socket",
            "key-file": "key",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        munge = [f"--{option}={folder / 'munge' / name}" for option, name in places.items()]
        self._run("munged", "--foreground", "--force", *munge)
        wait_until((folder / "munge" / "socket").exists, 30, "munged")
        self.start_controller("-c")
        for name in self.names:
            self.start_node(name)
        wait_until(lambda: self.states() == dict.fromkeys(self.names, "idle"), 60, "idle nodes")

    def start_controller(self, *options: str) -> None:
        self._run("slurmctld", "-D", *options)

    def stop_controller(self) -> None:
        """The controller ends in good order; jobs go on."""
        controller = self._processes.pop("slurmctld")
        controller.terminate()
        controller.wait()

    def start_node(self, name: str) -> None:
        """Start a node, also one that has lost power."""
        self._run("slurmd", "-D", "-N", name, key=name)

    def lose_power(self, name: str) -> None:
        """Every process of the node ends at this moment, without a last word: its daemon, and all that its jobs run."""
        daemon = self._processes.pop(name)
        daemon.kill()
        daemon.wait()
        for process in self._of_jobs("SLURMD_NODENAME", name):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def kill_processes(self, job: str) -> None:
        """Kill what a job runs, as the kernel does that is short of memory. Slurm itself is not told."""
        for process in self._of_jobs("SLURM_JOB_ID", job):
            with contextlib.suppress(psutil.Error):
                if not process.name().startswith("slurmstepd"):
                    process.kill()

    def stop(self) -> None:
        """End all daemons, and all that jobs run."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        for name in self.names:
            for left in self._of_jobs("SLURMD_NODENAME", name):
                with contextlib.suppress(psutil.Error):
                    left.kill()
        self._processes.clear()

    def states(self) -> dict[str, str]:
        """Node -> its state."""
        try:
            said = self.command("sinfo", "--noheader", "--Node", "--partition=gpu", "--format=%N %T")
        except subprocess.CalledProcessError:
            return {}
        return dict(line.split() for line in said.splitlines())  # type: ignore[misc]

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job."""
        said = self.command("scontrol", "show", "job", "--oneliner", number)
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def jobs(self) -> list[dict[str, str]]:
        """Every job that Slurm remembers, oldest first."""
        numbers = self.command("squeue", "--noheader", "--states=all", "--format=%A", "--sort=i").split()
        return [self.job(number) for number in numbers]

    def command(self, *words: str) -> str:
        """Standard output of a Slurm command. Raises CalledProcessError."""
        environment = dict(os.environ) | self.environment
        done = subprocess.run(
            words, env=environment, check=True, timeout=60, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def _run(self, program: str, *words: str, key: str = "") -> None:
        log = self.folder / f"{key or program}.out"
        environment = dict(os.environ) | self.environment | {"PATH": _path()}
        with log.open("ab") as stream:
            self._processes[key or program] = subprocess.Popen(
                [program, *words],
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _of_jobs(self, variable: str, value: str) -> list[psutil.Process]:
        """Processes of the jobs with this variable: Slurm's own (slurmstepd) first, then those that it started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                here = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if here and variables.get(variable) == value:
                    found.append(process)
        masters = {parent for process in found for parent in [process.parent()] if parent is not None}
        return [m for m in masters if m.name().startswith("slurmstepd")] + found


@contextlib.contextmanager
def cluster(folder: Path, nodes: int) -> Iterator[Cluster]:
    """A cluster that lives as long as the block."""
    made = Cluster(folder, nodes)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def wait_until(condition: Callable[[], T], seconds: float, what: str, every: float = 0.2) -> T:
    """The condition's first true value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
    return value


def _free_port(probes: contextlib.ExitStack) -> int:
    probe = probes.enter_context(socket.create_server(("127.0.0.1", 0)))
    return int(probe.getsockname()[1])


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
