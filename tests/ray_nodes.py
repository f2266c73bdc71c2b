"""Keeps real Ray nodes on loopback, for test_ray.py: a process, for what is imported to start a node stays with one.

    python ray_nodes.py CLIENT_PORT

Its standard input takes lines, each answered with one: `join CACHE` starts a node of one CPU with that folder for a
cache, `kill N` ends the N-th as a power failure would. The first answer is the cluster's address; the head measures
nothing.
"""

import os
import sys

import psutil
from ray.cluster_utils import Cluster

# `ray start` would take the address that others reach this machine by, and listen to all of them.
COMMON = {
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 80 * 2**20,
    "memory": 2 * 2**30,
    "include_dashboard": False,
    "include_log_monitor": False,
}


def tree(node):
    """A node's processes with all that they have started."""
    started = [one.process.pid for many in node.all_processes.values() for one in many]
    found = [psutil.Process(pid) for pid in started if psutil.pid_exists(pid)]
    return [*found, *(child for one in found for child in one.children(recursive=True))]


def end(processes):
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, 10)


def main(client_port):
    head = {"num_cpus": 0, "ray_client_server_port": int(client_port), "no_monitor": True}
    cluster, nodes = Cluster(initialize_head=True, head_node_args={**COMMON, **head}), []
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints is no answer
    print(cluster.address, file=answers)
    try:
        for line in sys.stdin:
            word, what = line.split()
            if word == "join":
                os.environ["ROSETTA_CACHE"] = what
                nodes.append(cluster.add_node(num_cpus=1, **COMMON))
                print("joined", file=answers)
            elif word == "kill":
                end(tree(nodes[int(what)]))
                print("killed", file=answers)
    finally:
        for node in (*nodes, cluster.head_node):
            end(tree(node))


if __name__ == "__main__":
    main(*sys.argv[1:])
