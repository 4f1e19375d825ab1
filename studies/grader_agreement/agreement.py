"""Compares the graders with official verdicts, on the public files that lie in a folder.

`python studies/grader_agreement/agreement.py FOLDER` prints a line for each file, and every case of which the two say
different things. README.md names the files; one that is missing is told with its address and left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolambda.graders import ifeval
from autolambda.graders.service import GradingService
from autolambda.responses import Grade, Response

GSM8K = "https://github.com/openai/grade-school-math, grade_school_math/data"
MATH = "https://github.com/openai/prm800k, prm800k/math_splits"
IFEVAL = "https://github.com/google-research/google-research, instruction_following_eval"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
MOST_SHOWN = 20  # cases of a file


@dataclass(frozen=True)
class Case:
    """A text, the target of its grader, and the official verdict."""

    place: str
    text: str
    target: str
    correct: bool


@dataclass(frozen=True)
class Source:
    """A public file: its place in the folder, the grader that is compared, where it comes from, and its cases."""

    path: str
    grader: str
    origin: str
    cases: Callable[[Path], Iterator[Case]]


@dataclass(frozen=True)
class Agreement:
    """The cases of a file, and those on which grader and verdict differ, with the answer that was read."""

    source: Source
    num_cases: int
    others: tuple[tuple[Case, str | None], ...]

    @property
    def line(self) -> str:
        agreed = self.num_cases - len(self.others)
        too_kind = sum(not case.correct for case, _ in self.others)
        name = f"{self.source.path:<36}{self.source.grader:<8}"
        return f"{name}{self.num_cases:>7,}{agreed:>8,}{too_kind:>10,}{len(self.others) - too_kind:>10,}"


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", json.loads(line)


def gsm8k_models(path: Path) -> Iterator[Case]:
    """Four models' solutions a question, each with OpenAI's verdict."""
    for place, row in rows_of(path):
        target = row["ground_truth"].rpartition("A:")[2].strip()
        for model in MODELS:
            yield Case(f"{place}, {model}", row[model]["solution"], target, row[model]["is_correct"])


def gsm8k_solutions(path: Path) -> Iterator[Case]:
    """Official solutions, each correct for its own answer and, unless the two are equal, wrong for the next one's."""
    yield from own_and_next(
        [(place, row["answer"], row["answer"].rpartition("####")[2]) for place, row in rows_of(path)]
    )


def math_solutions(path: Path) -> Iterator[Case]:
    yield from own_and_next([(place, row["solution"], row["answer"]) for place, row in rows_of(path)])


def own_and_next(solved: list[tuple[str, str, str]]) -> Iterator[Case]:
    for (place, text, own), (_, _, following) in zip(solved, solved[1:] + solved[:1], strict=True):
        yield Case(place, text, own.strip(), True)
        if plain(own) != plain(following):
            yield Case(f"{place}, with the next answer", text, following.strip(), False)


def plain(answer: str) -> str:
    return "".join(answer.replace(",", "").split())


def ifeval_responses(path: Path) -> Iterator[Case]:
    """The responses that Google's ``evaluation_main`` has judged, with its strict verdict on the whole prompt."""
    asked = {row["prompt"]: row for _, row in rows_of(path.with_name("input_data.jsonl"))}
    for place, row in rows_of(path):
        target = {key: asked[row["prompt"]][key] for key in ("key", "prompt", "instruction_id_list", "kwargs")}
        yield Case(place, row["response"], json.dumps(target), row["follow_all_instructions"])


SOURCES = (
    Source("gsm8k/example_model_solutions.jsonl", "number", GSM8K, gsm8k_models),
    Source("gsm8k/test.jsonl", "number", GSM8K, gsm8k_solutions),
    Source("math/test.jsonl", "math", MATH, math_solutions),
    Source("ifeval/eval_results_strict.jsonl", "ifeval", IFEVAL, ifeval_responses),
)


def compare(source: Source, folder: Path, service: GradingService) -> Agreement:
    """Returns the agreement on one file. An answer that is not found counts as wrong."""
    if source.grader == "ifeval":
        ifeval.check()
    cases = list(source.cases(folder / source.path))
    scores = [
        service.score(Response(case.text, 1, "stop"), case.target, grader=source.grader, think_end="</think>")
        for case in cases
    ]
    found = [(case, score.result()) for case, score in zip(cases, scores, strict=True)]
    others = tuple((case, score.answer) for case, score in found if (score.grade is Grade.CORRECT) != case.correct)
    return Agreement(source, len(cases), others)


def agreements(folder: Path) -> Mapping[Source, Agreement | None]:
    """Returns the agreement on each file; ``None`` for one that is not in the folder."""
    with closing(GradingService(seconds=30)) as service:
        return {
            source: compare(source, folder, service) if (folder / source.path).exists() else None for source in SOURCES
        }


def main(folder: Path) -> None:
    found = agreements(folder)
    print(f"{'file':<36}{'grader':<8}{'cases':>7}{'agree':>8}{'too kind':>10}{'too hard':>10}")
    for source, agreement in found.items():
        print(agreement.line if agreement else f"{source.path:<36}not in {folder}; from {source.origin}")
    for source, agreement in found.items():
        for case, answer in agreement.others[:MOST_SHOWN] if agreement else ():
            said = "correct" if case.correct else "wrong"
            print(f"{source.path}, {case.place}: official {said}, target {case.target[:60]!r}, read {answer!r:.80}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: agreement.py FOLDER")
    main(Path(sys.argv[1]))
