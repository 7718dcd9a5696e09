"""Docker where an engine runs: no network, read-only, no capabilities, limits of memory and processes."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from evalkit.errors import ConfigError
from evalkit.sandbox.confined import ConfinedSandbox, refuse
from evalkit.sandbox.plan import Cell, Limits, inner_arguments, inner_environment, make_plan
from evalkit.sandbox.process import Command
from evalkit.types import Json

WORK = "/tmp"  # inside the container: an empty file system of its own
ENGINE_SECONDS = 30
PASSED_ON = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "XDG_RUNTIME_DIR")


class DockerSandbox(ConfinedSandbox):
    """A fresh container per program (a second or more each), with the filter and limits of the others inside.

    CPU time and memory are not reported: only the client's would be seen.

    image: any image with `python` 3.11 or later on its path, already pulled. num_processes: pids limit.
    """

    name = "docker"
    isolates_by = ("docker", "no network", "seccomp", "no capabilities", "resource limits")

    def __init__(
        self,
        memory_bytes: int = Limits.memory_bytes,
        disk_bytes: int = Limits.disk_bytes,
        wall_factor: float = 10.0,
        image: str = "python:3.11-slim",
        num_processes: int = 64,
    ) -> None:
        """Keep the settings. Raises ConfigError for one that cannot be meant."""
        super().__init__(memory_bytes, disk_bytes, wall_factor, packages=())
        if not isinstance(image, str) or not image:
            raise ConfigError(f"sandbox.image={image}: use an image's name, e.g. python:3.11-slim")
        if type(num_processes) is not int or num_processes < 1:
            raise ConfigError(f"sandbox.num_processes={num_processes}: use a whole number from 1 up")
        self.image = image
        self.num_processes = num_processes

    def check_machine(self) -> None:
        """An engine must answer and hold the image."""
        if shutil.which("docker") is None:
            raise refuse(self.name, "the program docker is not installed", "choose sandbox=auto")
        try:
            subprocess.run(
                ["docker", "image", "inspect", self.image],
                capture_output=True,
                text=True,
                check=True,
                timeout=ENGINE_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1] if error.stderr.strip() else "no engine answers"
            raise refuse(self.name, reason, f"docker pull {self.image}") from error
        except subprocess.TimeoutExpired as error:
            raise refuse(self.name, "no engine answers", "start the docker service") from error

    def cell(self) -> Cell:
        """A fresh container; the name is for ending it, because the client's end does not."""
        name = f"evalkit-{secrets.token_hex(8)}"
        plan = make_plan(self.limits, WORK)
        plan["landlock_abi"] = 0  # the container's own file system is the boundary
        argv = ["docker", "run", "--rm", "--init", "--interactive", "--name", name, *self.confinement()]
        argv += [self.image, *inner_arguments("python")]
        command = Command(tuple(argv), client_environment(), measured=False)
        return Cell(command, plan, source_form=True, kill=["docker", "kill", name])

    def provenance(self) -> Mapping[str, Json]:
        """See Sandbox.provenance; the interpreter is the image's."""
        common = {k: v for k, v in super().provenance().items() if k not in ("python", "landlock_abi", "packages")}
        return {**common, "image": self.image, "num_processes": self.num_processes}

    def confinement(self) -> Sequence[str]:
        """Arguments of `docker run`."""
        memory = str(self.limits.used_bytes)
        options = ["--network", "none", "--read-only", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--user", "65534:65534", "--ipc", "none"]
        options += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(self.num_processes)]
        size, files = self.limits.disk_bytes, self.limits.num_files
        options += ["--tmpfs", f"{WORK}:size={size},nr_inodes={files},mode=1777", "--workdir", WORK]
        for key, value in inner_environment(WORK).items():
            options += ["--env", f"{key}={value}"]
        return options


def client_environment() -> dict[str, str]:
    """What the docker client needs of the caller's variables; none of it reaches the container."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
