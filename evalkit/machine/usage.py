"""Time and memory that this process has used."""

import resource
from contextlib import suppress
from pathlib import Path

GIB = 2**30


def cpu_seconds() -> float:
    """User and system time of this process and of the children it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_memory_bytes() -> int:
    """The largest resident size this process has had (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> int:
    """Let `peak_since_reset` begin anew; the bytes that are resident now."""
    with suppress(OSError):  # not every sandbox has it: then the peak is that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _resident_bytes("VmRSS")


def peak_since_reset() -> int:
    """The largest resident size since `reset_peak`, in bytes."""
    return _resident_bytes("VmHWM")


def _resident_bytes(field: str) -> int:
    """Bytes by Linux's account of this process; elsewhere its peak."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return peak_memory_bytes()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def may_have_gpu() -> bool:
    """False where no GPU's driver shows itself (NVIDIA's, also under WSL, or AMD's), which is seen without torch."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "nvidia0", "dxg", "kfd"))
