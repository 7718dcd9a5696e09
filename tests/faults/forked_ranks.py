"""`python forked_ranks.py N ARGUMENT…` runs `python -m evalkit ARGUMENT…` as N ranks without accelerate.

The libraries are loaded once and the ranks forked: the rendezvous is the environment's alone, and rank 0 keeps the
store. The exit code is the largest of the ranks'.
"""

import ctypes
import os
import signal
import socket
import sys
from types import ModuleType

sys.modules["datasets"] = ModuleType("datasets")  # the hub's client is slow to start, and not used here

import torch  # noqa: E402, F401
import transformers.models.auto.modeling_auto  # noqa: E402, F401

import evalkit.backends.engine_session  # noqa: E402, F401
from evalkit.cli import main  # noqa: E402


def fork_rank(rank: int, num_ranks: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it dies with its parent
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = ["evalkit", *sys.argv[2:]]
    try:
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as free:
        free_port = free.getsockname()[1]
    ranks = [fork_rank(rank, int(sys.argv[1]), free_port) for rank in range(int(sys.argv[1]))]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks))
