"""Hand-written rows in the schemas of published sets, and local copies of them in every form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def gsm8k(start: int, num: int) -> Rows:
    return [
        {
            "question": f"A shed holds {i} crates of 1,000 nails. Mara adds {i + 1} crates. How many nails are there?",
            "answer": f"There are {i}+{i + 1}=<<{i}+{i + 1}={2 * i + 1}>>{2 * i + 1} crates.\n#### {2 * i + 1},000",
        }
        for i in range(start, start + num)
    ]


def math500(start: int, num: int) -> Rows:
    return [
        {
            "problem": f"Write $\\frac{{{i}}}{{{i + 1}}}$ as a decimal fraction in lowest terms.",
            "solution": f"It is in lowest terms: $\\boxed{{\\frac{{{i}}}{{{i + 1}}}}}$.",
            "answer": f"\\frac{{{i}}}{{{i + 1}}}",
            "subject": "Prealgebra",
            "level": 1 + i % 5,
            "unique_id": f"test/prealgebra/{i}.json",
        }
        for i in range(start, start + num)
    ]


def math12k(start: int, num: int) -> Rows:
    return [{"problem": row["problem"], "answer": row["answer"]} for row in math500(start, num)]


def aime24(start: int, num: int) -> Rows:
    return [
        {
            "id": 60 + i,
            "problem": f"Find the remainder when ${i}^2$ is divided by $1000$.",
            "solution": f"It is {i * i % 1000}.",
            "answer": f"{i * i % 1000:03d}",
            "url": "https://example.org/problem",
            "year": "2024",
        }
        for i in range(start, start + num)
    ]


def aime25(start: int, num: int) -> Rows:
    return [
        {"problem": f"How many squares lie below ${i * i}$?", "answer": str(i - 1), "id": str(i)}
        for i in range(start, start + num)
    ]


def opencompass_aime25(start: int, num: int) -> Rows:
    return [{"question": row["problem"], "answer": row["answer"]} for row in aime25(start, num)]


def gpqa(start: int, num: int) -> Rows:
    return [
        {
            "Pre-Revision Question": "Which one?",
            "Question": f"Which of these has {i} protons?\n",
            "Correct Answer": f"element {i}\n",
            "Incorrect Answer 1": f"element {i + 1}",
            "Incorrect Answer 2": f" element {i + 2}",
            "Incorrect Answer 3": f"element {i + 3}",
            "Explanation": "By count.",
            "Subdomain": "Chemistry (general)",
            "Record ID": f"rec{i:05d}",
            "High-level domain": "Chemistry",
        }
        for i in range(start, start + num)
    ]


def ifeval(start: int, num: int) -> Rows:
    nothing = {"num_words": None, "relation": None, "forbidden_words": None}
    return [
        {
            "key": 1000 + i,
            "prompt": f"Describe a garden with {i} trees in fewer than 40 words. Use no commas.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [nothing, nothing | {"num_words": 40, "relation": "less than"}],
        }
        for i in range(start, start + num)
    ]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(path)
    return path


def jsonl_folder(folder: Path, splits: Mapping[str, Rows]) -> Path:
    """A folder with a file a split."""
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def saved(folder: Path, splits: Mapping[str, Rows]) -> Path:
    """What ``save_to_disk`` writes."""
    import datasets

    tables = {split: datasets.Dataset.from_list([dict(row) for row in rows]) for split, rows in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(folder)
    return folder


def repository(folder: Path, subsets: Mapping[str, Mapping[str, Rows]]) -> Path:
    """A copy of a hub repository: Parquet files by subset and split, and a card that says which is which."""
    lines = ["---", "configs:"]
    for subset, splits in subsets.items():
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split, rows in splits.items():
            write_parquet(folder / subset / f"{split}-00000-of-00001.parquet", rows)
            lines += [f"  - split: {split}", f"    path: {subset}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A set", ""]), encoding="utf-8")
    return folder
