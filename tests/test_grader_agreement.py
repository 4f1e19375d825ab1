"""The study of the graders' agreement, on a few rows in the exact form of the public files."""

import importlib.util
import json
import sys

import pytest
from paths import ROOT
from punkt import install_punkt

SCRIPT = ROOT / "studies/grader_agreement/agreement.py"


def solution(text, correct):
    return {"is_correct": correct, "solution": text}


MODELS = [
    {
        "question": "How many nails?",
        "ground_truth": "3 crates of 1,000 nails are <<3*1000=3000>>3,000 nails.\nA: 3000",
        "6b_finetuning": solution("3*1,000=<<3*1000=3000>>3,000\nA: 3,000", True),
        "6b_verification": solution("3*1,000=<<3*1000=3000>>3,000\nA: 3000.0", True),
        "175b_finetuning": solution("1,000+3=<<1000+3=1003>>1003\nA: 1003", False),
        "175b_verification": solution("It takes 3 crates and then 3 crates and then 3 cra", False),
    }
]
SUMS = [{"question": f"{i}", "answer": f"It is {i}.\n#### {i},000"} for i in (1, 2, 2)]
SOLVED = [
    {
        "problem": "p",
        "solution": "It is $\\boxed{\\frac{1}{2}}$.",
        "answer": "\\frac{1}{2}",
        "unique_id": "test/a/1.json",
    },
    {"problem": "p", "solution": "So $x=\\boxed{1{,}234}$.", "answer": "1,\\!234", "unique_id": "test/a/2.json"},
    {"problem": "p", "solution": "Hence $\\boxed{0.5}$.", "answer": "0.5", "unique_id": "test/a/3.json"},
]
ASKED = [{"key": 1000, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
JUDGED = [
    {"prompt": "No commas.", "response": "As you like.", "follow_all_instructions": True},
    {"prompt": "No commas.", "response": "As, you like.", "follow_all_instructions": True},  # a false verdict
]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("agreement", SCRIPT)
    module = sys.modules["agreement"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["agreement"]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_the_table_of_the_files_that_are_there(study, tmp_path, capsys):
    write(tmp_path / "gsm8k/example_model_solutions.jsonl", MODELS)
    write(tmp_path / "gsm8k/test.jsonl", SUMS)
    write(tmp_path / "math/test.jsonl", SOLVED)
    study.main(tmp_path)
    head, models, sums, solved, missing, other = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "grader", "cases", "agree", "too", "kind", "too", "hard"]
    assert models.split()[1:] == ["number", "4", "4", "0", "0"]
    assert sums.split()[1:] == ["number", "5", "5", "0", "0"]  # two of them are equal
    assert solved.split()[1:] == ["math", "6", "5", "1", "0"]
    assert missing.startswith("ifeval/eval_results_strict.jsonl") and study.IFEVAL in missing
    assert "official wrong, target '\\\\frac{1}{2}', read '0.5'" in other  # equal, though not as texts


def test_verdicts_on_instructions(study, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lm_eval")
    install_punkt(tmp_path / "nltk", patch=monkeypatch)
    write(tmp_path / "ifeval/input_data.jsonl", ASKED)
    write(tmp_path / "ifeval/eval_results_strict.jsonl", JUDGED)
    study.main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].split()[1:] == ["ifeval", "2", "1", "0", "1"]
    assert lines[5].startswith("ifeval/eval_results_strict.jsonl, line 2: official correct")
