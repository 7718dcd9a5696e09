"""Several processes answer one run: Ray places them, on this machine or on a cluster, and carries what passes between.

This process, the driver, keeps data, store, report and progress. Each worker loads the model once and answers parts,
one after the other; its answers come back one by one.

    settings.py   `workers` and `ray.address`; a launcher's own processes refused
    needs.py      what a worker takes of a machine, and how many a machine holds
    hand_out.py   which part is next, what was lost with a worker, which question kills
    worker.py     what runs in a worker's process
    folder.py     what Ray, started for one run, keeps on the disk
    cluster.py    Ray itself, started here or joined: the only door to it
    crew.py       the workers of a run: started, compared, fed, replaced
    call.py       one call: its parts, who answers them, and what was said before it was its turn
    backend.py    the Backend over all of them
"""
