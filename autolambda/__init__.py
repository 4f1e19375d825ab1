"""autolambda finds the best merge of an Instruct and a Thinking model for a token budget.

    import autolambda

    study = autolambda.search("org/Model-Instruct", "org/Model-Thinking", task="my.jsonl", budget=4000)
    study.verdict, study.pick, study.figures["front"]

``autolambda.api`` documents the functions. ``import autolambda`` is quick: a name is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["StudyView", "__version__", "evaluate", "merge", "open_study", "search"]

if TYPE_CHECKING:
    from autolambda.api import evaluate, merge, open_study, search
    from autolambda.study_view import StudyView
else:  # hidden from type checkers, which would then accept any name

    def __getattr__(name: str) -> object:
        if name == "StudyView":
            from autolambda.study_view import StudyView

            return StudyView
        if name in __all__:
            from autolambda import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
