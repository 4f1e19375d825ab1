"""The shorter version of studies/kills: a search killed by the clock, in storing, telling, confirming and exporting."""

from __future__ import annotations

import subprocess
import sys

from paths import ROOT

KILLS = ROOT / "studies/kills/kills.py"


def test_a_search_that_is_killed_ends_as_one_that_nobody_disturbed() -> None:
    """The script ends with an assertion where a response, a trial, the verdict or the report differs."""
    done = subprocess.run([sys.executable, str(KILLS), "8", "1"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "8 kills in " in done.stdout and "export" in done.stdout
