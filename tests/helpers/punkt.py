"""A sentence splitter for IFEval's checkers, trained on a few lines by nltk itself: the published one is a download."""

from pathlib import Path

import pytest

TEXT = """The river rose in the night. Nobody in the village slept. At dawn the miller walked to the bridge.
Was it still standing? It was! Mr. Brown had tied it to the old oak. Dr. Green came at noon with two ropes.
They worked until dark. Then they went home. The water fell on Sunday. By Monday the road was dry again.
"""


def install_punkt(folder: Path, *, patch: pytest.MonkeyPatch) -> Path:
    """Writes ``tokenizers/punkt_tab/english`` below ``folder`` and makes it nltk's only data, in workers too."""
    nltk = pytest.importorskip("nltk")
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    patch.setenv("NLTK_DATA", str(folder))
    patch.setattr(nltk.data, "path", [str(folder)])
    target = folder / "tokenizers" / "punkt_tab" / "english"
    target.parent.mkdir(parents=True)
    target.mkdir(mode=0o700)
    save_punkt_params(PunktTrainer(TEXT * 20).get_params(), dir=str(target))
    return folder
