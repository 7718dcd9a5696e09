"""The first code in a sandboxed interpreter: it takes its job from descriptor 0 and confines itself.

Sent as `python -c`, so it must not contain what it is told not to trust. Descriptors: 0 the job, 1 what the
program prints, 2 the channel to the supervisor, which moves to 3 so that 2 can join 1.
"""

import marshal
import os


def take(size: int) -> bytes:
    """Read exactly `size` bytes; a supervisor that is gone ends the process."""
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data


def main() -> None:
    """Take the job, confine, and run the part that the job names."""
    job = marshal.loads(take(int.from_bytes(take(8), "big")))
    os.dup2(2, 3)
    os.dup2(1, 2)
    os.dup2(0, 4)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 0)  # reading it raises, as in the reference package
    confine: dict[str, object] = {"__name__": "confine"}
    exec(job["confine"], confine)
    confine["confine"](job["plan"])  # type: ignore[operator]
    stand_ins: dict[str, object] = {"__name__": "stand_ins"}
    exec(job["stand_ins"], stand_ins)
    stand_ins["install"]()  # type: ignore[operator]
    part: dict[str, object] = {"__name__": "part"}
    exec(job["part"], part)
    part["main"](job["source"], job["settings"])  # type: ignore[operator]


if __name__ == "__main__":
    main()
