"""How tests are shared out to pytest-xdist's workers: by file, and files with a heavy start in common by group.

A group's files run one after the other in one worker. The heaviest start first, so that both workers end together.
xdist's own groups (``--dist loadgroup``) have no effect under pytest 9.2: pytest-dev/pytest-xdist issue 1386.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "vllm": (
        "tests/engines/vllm/",
        "tests/engines/test_contract.py",
        "tests/engines/test_architectures.py",
        "tests/driver/test_moe_pair.py",
    ),
    "ray": ("tests/engines/workers/",),
    "lm_eval": ("tests/graders/test_lm_eval.py", "tests/tasks/test_lm_eval.py"),
}  # in the order of their start; then come folders in this order, then all others
FIRST = ("tests/cli/", "tests/driver/", "tests/ablation/", "tests/study/", "tests/export/")


def group_of(node_id: str) -> str:
    """The group of a test: a name of ``GROUPS``, or its file."""
    file = node_id.partition("::")[0]
    return next((name for name, paths in GROUPS.items() if file.startswith(paths)), file)


def rank_of(node_id: str) -> int:
    """The place of a test in the order of starts: a group's, a folder's, or after all of them."""
    group = group_of(node_id)
    if group in GROUPS:
        return list(GROUPS).index(group)
    return len(GROUPS) + next((i for i, folder in enumerate(FIRST) if group.startswith(folder)), len(FIRST))


class GroupScheduling(LoadScopeScheduling):
    """Gives a free worker the next group."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
