"""A Slurm of one machine out of Debian's packages, for tests: munge, controller and two nodes, in one folder.

Root's own daemons on free ports, without systemd, cgroups or accounting. Each node has all cores and memory of the
machine, and a GPU that is pretended: a device file that nothing reads, so that jobs which ask for one queue for it and
get its number.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo")
PACKAGES = "slurmctld slurmd slurm-client munge"

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
# Jobs are bound to the cores that they asked for, as clusters do it.
TaskPlugin=task/affinity
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000
GresTypes=gpu
# A request that no partition can meet is refused at once; elsewhere it may wait for ever.
EnforcePartLimits=ALL
# squeue remembers ended jobs for so many seconds: the workflow's executor asks it.
MinJobAge=3600
KillWait=2
InactiveLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# A job of the partition `urgent` sends those in its way back to the queue.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
# LLN: to the node that has less to do.
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-00:00:00 LLN=YES State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 LLN=YES State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 State=UP
"""
NODE = """\
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:1 \
State=UNKNOWN
"""


def why_not() -> str | None:
    """Why no Slurm can be brought up here; None where it can."""
    if missing := [name for name in PROGRAMS if program(name) is None]:
        return f"not installed: {', '.join(missing)} (apt-get install {PACKAGES})"
    if os.geteuid() != 0:
        return "the daemons of a test Slurm start as root only"
    return None


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Cluster:
    """Up within `with`, and down by the numbers of its own processes at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.daemons = Path(folder), []
        # srun inside a job looks for its configuration where a cluster has it: the executor's job step drops
        # SLURM_CONF. A folder in PATH says it again, and nothing outside this folder is touched.
        commands = self.folder / "bin"
        self.environment = {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{commands}:{os.environ['PATH']}",
        }

    def __enter__(self) -> "Cluster":
        self._write()
        try:
            self._start("munged", "--foreground", "--force", f"--key-file={self.folder}/munge/key",
                        f"--socket={self.folder}/munge/socket", f"--pid-file={self.folder}/munge/pid",
                        f"--log-file={self.folder}/munge/log", f"--seed-file={self.folder}/munge/seed")  # fmt: skip
            self._wait("munge's socket", lambda: (self.folder / "munge/socket").exists())
            self.controller = self._start("slurmctld", "-D", "-c")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            self._wait("idle nodes", lambda: set(self.ask("sinfo", "--noheader", "--format=%T").split()) == {"idle"})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if len(self.daemons) == 2 + len(NODES):  # all up: no job may outlive them
            self.ask("scancel", "--user=root")
            self._wait("end of its jobs", lambda: not self.ask("squeue", "--noheader"))
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def ask(self, command: str, *arguments: str) -> str:
        """What one of Slurm's commands says; empty where it fails."""
        done = subprocess.run(
            [command, *arguments], env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=30
        )
        return done.stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start, ended ones too, by its number, as `scontrol show jobs` describes it."""
        lines = self.ask("scontrol", "show", "jobs", "--oneliner").splitlines()
        jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return sorted((job for job in jobs if "JobId" in job), key=lambda job: int(job["JobId"]))

    def _write(self) -> None:
        for name in ("munge", "state", "spool", "bin", "dev"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        controller_port, *ports = _free_ports(1 + len(NODES))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
        nodes, gpus = [], []
        for number, (node, port) in enumerate(zip(NODES, ports, strict=True)):
            nodes.append(NODE.format(node=node, host=host, port=port, cpus=os.cpu_count(), memory=memory))
            device = self.folder / f"dev/nvidia{number}"
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
            gpus.append(f"NodeName={node} Name=gpu File={device}\n")
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(host=host, folder=self.folder, controller_port=controller_port, nodes="".join(nodes))
        )
        (self.folder / "gres.conf").write_text("".join(gpus))
        wrapper = self.folder / "bin/srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {program("srun")} "$@"\n')
        wrapper.chmod(0o755)

    def stop_controller(self) -> None:
        self.controller.terminate()
        self.controller.wait(timeout=20)
        self.daemons.remove(self.controller)

    def start_controller(self) -> None:
        """With the state that it had."""
        self.controller = self._start("slurmctld", "-D")

    def _start(self, name: str, *arguments: str) -> subprocess.Popen:
        with (self.folder / f"{name}{len(self.daemons)}.out").open("wb") as said:
            command = [program(name), *arguments]
            environment = {**os.environ, **self.environment}
            self.daemons.append(subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT))
        return self.daemons[-1]

    def _wait(self, what: str, ready) -> None:
        end = time.monotonic() + 30
        while not ready():
            dead = [daemon for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                said = "\n".join(f"== {p.name}\n{p.read_text()[-1500:]}" for p in sorted(self.folder.glob("*.[lo]*")))
                raise RuntimeError(f"Slurm: no {what}\n{said}")
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
