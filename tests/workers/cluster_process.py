"""`python cluster_process.py` keeps a cluster of Ray's with one machine; lines of its input add others and remove them.

Each machine has one CPU. `add` answers with its id, `remove ID` kills it; the end of the input ends all.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# A machine that is gone is noticed soon.
os.environ |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}

from ray.cluster_utils import Cluster

_EACH = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}


def say(**content: str) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ek-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        Path(folder, "ray").mkdir()
        cluster = Cluster(initialize_head=True, head_node_args=_EACH)
        nodes = {}
        say(address=cluster.address)
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "add":
                node = cluster.add_node(**_EACH)
                nodes[node.node_id] = node
                say(id=node.node_id)
            else:
                cluster.remove_node(nodes.pop(rest[0]), allow_graceful=False)
                say(id=rest[0])
        cluster.shutdown()
