"""Makes the studies of a release: python tests/assets/make.py VERSION, with that release's code on PYTHONPATH.

Writes study-VERSION.db.xz and study-VERSION.json beside this file. The database holds two small searches of the
bundled pair, ``finished`` and ``unfinished``; the second was killed with SIGKILL in its fourth trial, with half of its
responses stored. The JSON is the release's own report of the first.
"""

from __future__ import annotations

import lzma
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

HERE = Path(__file__).parent
SEARCH = """
import sys
sys.path.insert(0, sys.argv[3])
from small_search import small_config
from autolambda.report.json_csv import report_json
from autolambda.driver.search import search
print(report_json(search(small_config(engine__batch_size=8), name=sys.argv[1], storage=sys.argv[2])))
"""
NUM_STORED = 3 * 16 + 8
COUNT = """
SELECT count(*) FROM autolambda_responses AS r JOIN autolambda_evaluations AS e ON e.id = r.evaluation
WHERE e.study = 'unfinished'
"""


def main(version: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        command = [sys.executable, "-c", SEARCH]
        rest = [f"sqlite:///{path}", str(HERE.parent)]
        report = subprocess.run([*command, "finished", *rest], stdout=subprocess.PIPE, text=True, check=True).stdout
        (HERE / f"study-{version}.json").write_text(report)
        with subprocess.Popen([*command, "unfinished", *rest], stdout=subprocess.DEVNULL) as driver:
            while num_stored(path) < NUM_STORED:
                time.sleep(0.005)
            driver.kill()
        assert num_stored(path) == NUM_STORED, "killed too late; try again"
        packed = Path(folder) / "packed.db"
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(packed)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
            target.execute("VACUUM")
        (HERE / f"study-{version}.db.xz").write_bytes(lzma.compress(packed.read_bytes(), preset=9))


def num_stored(path: Path) -> int:
    """The responses of the search that is to be killed."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(COUNT).fetchone()[0])
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
