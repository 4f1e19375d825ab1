"""Each benchmark on hand-written rows in its exact schema: the copy in every form, the prompt, the grader."""

import json
import re
from collections.abc import Callable, Sequence

import mirrors
import pytest
from punkt import install_punkt
from slices import slices_of

from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.graders.grading import GRADERS
from autolambda.tasks.base import Slice
from autolambda.tasks.benchmarks import BENCHMARKS
from autolambda.tasks.rows import Row

MATH = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
MADE: dict[str, Callable[[int, int], mirrors.Rows]] = {
    "gsm8k": mirrors.gsm8k,
    "math500": mirrors.math500,
    "aime24": mirrors.aime24,
    "aime25": mirrors.aime25,
    "gpqa_diamond": mirrors.gpqa,
    "ifeval": mirrors.ifeval,
}
NUM = 6


def splits_of(name: str) -> dict[str, mirrors.Rows]:
    """As many rows in each of the benchmark's splits."""
    benchmark = BENCHMARKS[name]
    splits = {benchmark.split: MADE[name](5, NUM)}
    if benchmark.confirm_split:
        splits[benchmark.confirm_split] = MADE[name](50, NUM)
    return splits


def slices(*tasks: dict, **sections: object) -> tuple[Sequence[Slice], Sequence[Slice], Sequence[str]]:
    opened = slices_of(parse_config({"tasks": list(tasks), **sections}))
    return opened.search, opened.confirm, opened.notes


def items_of(name: str) -> list:
    rows = [Row(cells, "made up", f"row {i}") for i, cells in enumerate(MADE[name](5, NUM), start=1)]
    return [BENCHMARKS[name].item(row) for row in rows]


def test_every_benchmark_is_made_up_here():
    assert MADE.keys() == BENCHMARKS.keys()
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


FORMS = {
    "jsonl": lambda folder, name: mirrors.jsonl_folder(folder, splits_of(name)),
    "saved": lambda folder, name: mirrors.saved(folder, splits_of(name)),
    "copied": lambda folder, name: mirrors.repository(
        folder,
        {subset: splits_of(name) for subset in {BENCHMARKS[name].subset or "default": 0, "default": 0, "another": 0}},
    ),
}


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("form", FORMS)
def test_a_local_copy_in_every_form(tmp_path, monkeypatch, name, form):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    benchmark = BENCHMARKS[name]
    folder = FORMS[form](tmp_path / form, name)
    (search,), (confirm,), _ = slices({"name": name, "path": str(folder)})
    read = {sample.id: sample for sample in (*search.samples, *confirm.samples)}
    expected = items_of(name)
    if benchmark.confirm_split:
        assert len(search.samples) == len(confirm.samples) == NUM
    else:
        assert len(read) == NUM and (len(search.samples), len(confirm.samples)) == (NUM // 3, 2 * NUM // 3)
        assert read == {item.sample.id: item.sample for item in expected}
    assert (search.grader, search.repeats) == (benchmark.grader, 8 if benchmark.repeats == 1 else benchmark.repeats)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_one_file_is_searched_and_confirmed_on(tmp_path, name):
    file = mirrors.write_jsonl(tmp_path / "all.jsonl", MADE[name](5, NUM))
    (search,), (confirm,), _ = slices({"name": name, "path": str(file)})
    found = {sample.id: sample for sample in (*search.samples, *confirm.samples)}
    assert found.keys() == {item.sample.id for item in items_of(name)}


PROMPTS = {
    "gsm8k": "A shed holds 5 crates of 1,000 nails. Mara adds 6 crates. How many nails are there?" + MATH,
    "math500": "Write $\\frac{5}{6}$ as a decimal fraction in lowest terms." + MATH,
    "aime24": "Find the remainder when $5^2$ is divided by $1000$." + MATH,
    "aime25": "How many squares lie below $25$?" + MATH,
    "gpqa_diamond": "Answer the following multiple choice question. The last line of your response should be of the "
    "following format: 'ANSWER: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before "
    "answering.\n\nWhich of these has 5 protons?\n\nA) element 6\nB) element 7\nC) element 5\nD) element 8",
    "ifeval": "Describe a garden with 5 trees in fewer than 40 words. Use no commas.",
}
TARGETS = {"gsm8k": "11000", "math500": "\\frac{5}{6}", "aime24": "25", "aime25": "4", "gpqa_diamond": "C"}
IDS = {"gsm8k": "1", "math500": "test/prealgebra/5.json", "aime24": "65", "aime25": "5", "gpqa_diamond": "rec00005",
       "ifeval": "1005"}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_prompt_in_the_customary_words(name):
    sample = items_of(name)[0].sample
    assert [dict(message) for message in sample.messages] == [{"role": "user", "content": PROMPTS[name]}]
    assert sample.id == IDS[name]
    assert name not in TARGETS or sample.target == TARGETS[name]


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "ifeval"])
def test_gold_answers_grade_as_correct_and_others_do_not(name):
    benchmark = BENCHMARKS[name]
    samples = [item.sample for item in items_of(name)]
    for number, sample in enumerate(samples):
        answer = GRADERS[benchmark.grader].canonical(sample.target)
        assert answer is not None
        assert GRADERS[benchmark.grader].grade(f"I think it is 3.\n{answer}", sample.target).correct
        other = next(each.target for each in samples[number:] + samples if each.target != sample.target)
        assert (
            not GRADERS[benchmark.grader].grade(str(GRADERS[benchmark.grader].canonical(other)), sample.target).correct
        )


def test_the_target_of_ifeval_is_what_its_checkers_take():
    target = json.loads(items_of("ifeval")[0].sample.target)
    assert target == {
        "key": "1005",
        "prompt": PROMPTS["ifeval"],
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"num_words": 40, "relation": "less than"}],
    }
    GRADERS["ifeval"].check_target(json.dumps(target))


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("Five trees stand in a quiet row.", True), ("Five trees, in a row.", False), ("A tree and " * 20, False)],
)
def test_a_response_that_follows_the_instructions_of_ifeval_is_correct(tmp_path, monkeypatch, text, is_right):
    install_punkt(tmp_path, patch=monkeypatch)
    target = items_of("ifeval")[0].sample.target
    assert GRADERS["ifeval"].grade(text, target).correct == is_right


def test_the_options_of_gpqa_keep_their_order_and_the_answer_falls_on_every_letter():
    items = [BENCHMARKS["gpqa_diamond"].item(Row(cells, "made up", "row 1")) for cells in mirrors.gpqa(0, 100)]
    letters = [item.sample.target for item in items]
    assert {letter: 10 < letters.count(letter) < 40 for letter in "ABCD"} == dict.fromkeys("ABCD", True)
    again = BENCHMARKS["gpqa_diamond"].item(Row(mirrors.gpqa(7, 1)[0], "another place", "row 99"))
    assert again.sample == items[7].sample


def test_the_other_columns_of_aime_2025():
    ours, theirs = mirrors.aime25(5, 1)[0], mirrors.opencompass_aime25(5, 1)[0]
    read = [BENCHMARKS["aime25"].item(Row(cells, "x", "row 1")).sample for cells in (ours, theirs)]
    assert (read[0].messages, read[0].target) == (read[1].messages, read[1].target)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gsm8k", {"answer": "11"}, "'answer' must end with #### and the number, seen '11'"),
        ("gsm8k", {"answer": 11}, "must end with ####"),
        ("gsm8k", {"answer": "so\n####"}, "must end with ####"),
        ("gsm8k", {"question": None}, "'question' must be a text or a number, seen 'None'"),
        ("math500", {"answer": ""}, "'answer' is empty"),
        ("math500", {"answer": ["1"]}, "'answer' must be a text or a number"),
        ("math500", {"level": {}}, "'level' must be a text or a number"),
        ("aime24", {"answer": "1000"}, "'answer' must be an integer from 0 to 999, seen '1000'"),
        ("aime24", {"answer": "-1"}, "'answer' must be an integer from 0 to 999"),
        ("aime25", {"answer": "x"}, "'answer' must be an integer from 0 to 999"),
        ("gpqa_diamond", {"Incorrect Answer 1": "element 5"}, "two options are the same, seen 'element 5'"),
        ("gpqa_diamond", {"Incorrect Answer 3": None}, "'Incorrect Answer 3' must be a text"),
        ("ifeval", {"kwargs": [{}]}, "'kwargs' must hold one entry for each of the 2 instructions, seen 1"),
        ("ifeval", {"kwargs": [3, 4]}, "'kwargs' must hold keys and values, seen '3'"),
        ("ifeval", {"instruction_id_list": "no"}, "'instruction_id_list' must be a list"),
        ("ifeval", {"instruction_id_list": ["a:b", "c:d"]}, "grader 'ifeval' cannot compare .*unknown instructions"),
    ],
)
def test_a_bad_row_is_named(tmp_path, name, change, message):
    first, *rows = MADE[name](5, 3)
    file = mirrors.write_jsonl(tmp_path / "bad.jsonl", [*rows, {**first, **change}])
    with pytest.raises(TaskError, match=rf"bad.jsonl, line 3: .*{message}") as caught:
        slices({"name": name, "path": str(file)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [("gsm8k", "answer"), ("math500", "problem"), ("aime25", "problem"), ("gpqa_diamond", "Record ID"),
     ("ifeval", "kwargs")],
)  # fmt: skip
def test_a_missing_column_is_named_with_those_there_are(tmp_path, name, column):
    rows = [{key: value for key, value in row.items() if key != column} for row in MADE[name](5, 3)]
    file = mirrors.write_jsonl(tmp_path / "bad.jsonl", rows)
    with pytest.raises(TaskError, match=f"bad.jsonl, line 1: no column '{column}'; it has '{next(iter(rows[0]))}'"):
        slices({"name": name, "path": str(file)})


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_lists_in_tables(tmp_path, form):
    """IFEval's lists as a Parquet file holds them, and as JSON in a CSV file."""
    rows = mirrors.ifeval(5, NUM)
    if form == "parquet":
        file = mirrors.write_parquet(tmp_path / "a.parquet", rows)
    else:
        import pandas

        file = tmp_path / "a.csv"
        as_json = [{key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
        pandas.DataFrame(as_json).to_csv(file, index=False)
    (search,), (confirm,), _ = slices({"name": "ifeval", "path": str(file)})
    found = {sample.id: sample for sample in (*search.samples, *confirm.samples)}
    assert found == {item.sample.id: item.sample for item in items_of("ifeval")}


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("math500", {}, ["searching on math500, a test set: .*hub: hiyouga/math12k.*confirm_on: math500"]),
        ("gsm8k", {}, []),
        ("gsm8k", {"split": "test"}, ["searching on gsm8k, a test set: .*search on its train split"]),
        ("aime24", {}, ["searching on aime24, a test set: .*confirm_on: aime25"]),
        ("gpqa_diamond", {}, ["a test set: .*subset: gpqa_extended"]),
        ("gpqa_diamond", {"subset": "gpqa_extended"}, []),
        ("ifeval", {}, ["a test set"]),
    ],
)
def test_who_searches_on_a_test_set_is_told(tmp_path, monkeypatch, name, keys, expected):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = mirrors.repository(tmp_path / "copy", {keys.get("subset", "default"): splits_of(name)})
    _, _, notes = slices({"name": name, "path": str(folder), **keys})
    assert len(notes) == len(expected)
    for note, pattern in zip(notes, expected, strict=True):
        assert re.search(pattern, note)
