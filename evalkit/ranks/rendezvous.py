"""How the processes of a run find each other, and which device and how many threads each takes.

Only an address and a password go through the launcher's store; nothing is kept waiting on it afterwards.
"""

import json
import os
import secrets
import socket
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is there; its stubs lack it

from evalkit.errors import EngineError
from evalkit.ranks.follower import Follower
from evalkit.ranks.leader import Leader
from evalkit.ranks.place import Place
from evalkit.ranks.wire import Channel

JOIN_SECONDS = 300  # for a process to start, on a machine that is slow to load its libraries
_PASSWORD_BYTES = 16


def meet(place: Place) -> Leader | Follower:
    """This process's side of the run, and its device and threads chosen.

    Raises EngineError where rank 0 cannot be found.
    """
    take_device(place)
    key = f"evalkit/{place.attempt}"
    try:
        serves = place.rank == 0 and not place.launcher_keeps_store
        limit = timedelta(seconds=JOIN_SECONDS)
        store = TCPStore(place.host, place.port, None, serves, limit, wait_for_workers=False, multi_tenant=serves)
        if place.rank == 0:
            listener = _listen(place)
            password = secrets.token_hex(_PASSWORD_BYTES)
            store.set(key, json.dumps([listener.getsockname()[1], password]))
            return Leader(place, listener, password, keep=store)
        port, password = json.loads(store.get(key))
        host = "127.0.0.1" if place.on_one_machine else place.host
        connection = socket.create_connection((host, port), timeout=JOIN_SECONDS)
        connection.settimeout(None)
    except (RuntimeError, OSError) as error:
        raise EngineError(
            f"rank {place.rank} cannot find rank 0 at {place.host}:{place.port} ({str(error).splitlines()[0]}); "
            f"check --main_process_ip and --main_process_port, and that the machines reach each other"
        ) from None
    return Follower(place, Channel(connection), password)


def _listen(place: Place) -> socket.socket:
    """A port of its own: on one machine nobody outside reaches it."""
    if place.on_one_machine:
        return socket.create_server(("127.0.0.1", 0), backlog=place.num_ranks)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=place.num_ranks)
    return socket.create_server(("", 0), backlog=place.num_ranks)


def take_device(place: Place) -> None:
    """The GPUs of this process: its share of its machine's. Where there are none, its share of the cores.

    A number of threads that the environment names is left alone: accelerate always names one
    (--num_cpu_threads_per_process).
    """
    num_gpus = torch.cuda.device_count()  # asked of the driver's management library: CUDA itself sleeps until later
    if num_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(place, visible.split(",")))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // place.num_local))


def gpus_of(place: Place, gpus: Sequence[str]) -> Sequence[str]:
    """A process's own GPUs; with more processes than GPUs, one that it shares.

    More than one is for model.device_map: 8 GPUs and 2 processes make two copies of a model on 4 GPUs each.
    """
    each = len(gpus) // place.num_local
    first = place.local_rank * each
    return gpus[first : first + each] if each else [gpus[place.local_rank % len(gpus)]]
