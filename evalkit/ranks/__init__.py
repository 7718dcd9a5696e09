"""Several processes answer one run: rank 0 holds everything, the others only answer.

`accelerate launch` starts the processes (torchrun and whatever else sets RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT do as well). Rank 0 has the data, the store and the report, cuts each task into parts, and keeps them in one
queue; every process, rank 0 too, takes the next part when it has answered its last. Answers go to rank 0 one by one.

    place.py        which rank this process is, from the environment
    rendezvous.py   how the others find rank 0: the launcher's store (the only torch here)
    wire.py         messages on a socket
    leader.py       rank 0's side: the queue, and who is there
    shared.py       rank 0's backend
    follower.py     the other ranks

Each of the others keeps one connection to rank 0. So a process that dies is known at once, by its kernel closing the
connection, and there is no collective and nothing polled that a long generation could make late.
"""
