"""The folder of a Ray that was started for one run."""

import subprocess
import sys
from pathlib import Path

from evalkit.workers.folder import OwnFolder

HOLDING = """
import sys, time
from pathlib import Path
from evalkit.workers.folder import OwnFolder
folder = OwnFolder(Path(sys.argv[1]))
(folder.path / "session").mkdir()
print(folder.path, flush=True)
time.sleep(600)
"""


def test_a_killed_run_s_folder_is_gone_at_the_next_start_and_one_in_use_or_of_others_stays(tmp_path: Path) -> None:
    (tmp_path / "evalkit-other").mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        first = OwnFolder(tmp_path)
        assert held.is_dir()
        first.remove()
        assert not first.path.exists()
    finally:
        holder.kill()
        holder.communicate()
    assert held.is_dir()
    second = OwnFolder(tmp_path)
    assert not held.exists()
    assert second.path.is_dir()
    second.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["evalkit-other"]
