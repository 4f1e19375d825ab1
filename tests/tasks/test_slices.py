"""Slices: what the search may see and what only the confirmation sees, of one set or of two, and no prompt in both."""

import json
from collections import Counter
from pathlib import Path

import mirrors
import pytest
import yaml
from paths import ROOT
from slices import slices_of

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.graders.grading import GRADERS
from autolambda.tasks.arithmetic import read_samples
from autolambda.tasks.base import Slice
from autolambda.tasks.slices import LEAST_SEARCHED, MOST_REPEATS, Slices

ROWS = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(20)]
CONFIGS = ROOT / "configs"


def opened(*tasks: dict, **sections: object) -> Slices:
    return slices_of(parse_config({"tasks": list(tasks), **sections}))


def prompts(part: Slice) -> list[str]:
    return [sample.messages[0]["content"] for sample in part.samples]


@pytest.fixture
def path(tmp_path):
    return str(mirrors.write_jsonl(tmp_path / "mine.jsonl", ROWS))


@pytest.mark.parametrize(("share", "num_confirm"), [(0.5, 10), (0.1, 2), (0.001, 1), (0.999, 19)])
def test_the_slices_share_nothing_and_neither_is_empty(path, share, num_confirm):
    found = opened({"path": path}, confirm={"share": share})
    search, confirm = set(prompts(found.search[0])), set(prompts(found.confirm[0]))
    assert len(confirm) == num_confirm
    assert not search & confirm
    assert search | confirm == {row["question"] for row in ROWS}


def test_the_cut_follows_the_seed_alone(path):
    cuts = [prompts(opened({"path": path}, search={"seed": seed}).search[0]) for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert cuts[0] != sorted(cuts[0])


def test_the_cut_of_a_file_is_that_of_studies_begun_before_there_were_benchmarks(path):
    found = opened({"path": path}, confirm={"share": 0.5})
    assert [sample.id for sample in found.confirm[0].samples] == [str(i) for i in (11, 19, 17, 15, 1, 18, 12, 3, 4, 10)]
    assert [sample.id for sample in found.search[0].samples] == [str(i) for i in (6, 8, 5, 20, 7, 16, 9, 2, 14, 13)]


def test_any_number_of_the_first_prompts_holds_the_same_shares_of_each_difficulty(tmp_path):
    hard = {i: "hard" if i % 4 == 0 else "easy" if i % 4 == 1 else "middling" for i in range(200)}
    rows = [{"question": f"q{i}", "answer": i, "difficulty": hard[i]} for i in range(200)]
    found = opened({"path": str(mirrors.write_jsonl(tmp_path / "a.jsonl", rows))}, confirm={"share": 0.3})
    assert (len(found.search[0].samples), len(found.confirm[0].samples)) == (140, 60)
    for part in (found.search[0], found.confirm[0]):
        for num in range(1, len(part.samples) + 1):
            counts = Counter(sample.metadata["difficulty"] for sample in part.samples[:num])
            for name, share in (("hard", 0.25), ("easy", 0.25), ("middling", 0.5)):
                assert abs(counts[name] - share * num) <= 1.5, (num, counts)
    assert [sample.id for sample in found.search[0].samples] != sorted(sample.id for sample in found.search[0].samples)


def test_the_bundled_task_is_whole_and_disjoint():
    found = opened({"name": "arithmetic", "limit": None}, confirm={"limit": None})
    assert found.search[0].samples == tuple(read_samples("search"))
    assert found.confirm[0].samples == tuple(read_samples("confirm"))
    test = [json.loads(line)["question"] for line in (FOLDER / "test.jsonl").read_text().splitlines()]
    every = [*prompts(found.search[0]), *prompts(found.confirm[0]), *test]
    assert len(set(every)) == len(every)
    samples = [*found.search[0].samples, *found.confirm[0].samples]
    assert len({sample.id for sample in samples}) == len(samples)
    grade = GRADERS[found.search[0].grader].grade
    assert all(grade(sample.target, sample.target).correct for sample in samples)
    assert opened({"name": "arithmetic"}).search[0].num_responses == 512 and not found.notes
    assert opened({"name": "arithmetic", "grader": "exact"}).confirm[0].grader == "exact"


def test_what_the_config_says_of_a_slice(path):
    guard = {"path": path, "label": "kept", "guard": {"max_drop": 0.03}, "on_grader_error": "unparsed", "limit": 3}
    found = opened({"name": "arithmetic", "repeats": 2, "weight": 3.0}, guard, confirm={"limit": 5, "repeats": 7})
    assert [(part.task, len(part.samples), part.repeats) for part in found.search] == [
        ("arithmetic", 512, 2),
        ("kept", 3, 8),
    ]
    assert [(part.task, len(part.samples), part.repeats) for part in found.confirm] == [
        ("arithmetic", 5, 7),
        ("kept", 5, 7),
    ]
    assert [(part.weight, part.max_drop, part.on_grader_error) for part in found.search] == [
        (3.0, None, "stop"),
        (1.0, 0.03, "unparsed"),
    ]


def test_repeats_are_the_benchmarks_own_where_none_are_said(tmp_path):
    both = {"name": "aime24", "path": str(mirrors.write_jsonl(tmp_path / "aime.jsonl", mirrors.aime24(5, 6)))}
    assert [part.repeats for part in (opened(both).search[0], opened(both).confirm[0])] == [8, 8]
    found = opened(both | {"repeats": 3}, confirm={"repeats": 2})
    assert (found.search[0].repeats, found.confirm[0].repeats) == (3, 2)
    plain = opened({"path": both["path"], "question": "problem"})
    assert (plain.search[0].repeats, plain.confirm[0].repeats) == (MOST_REPEATS, MOST_REPEATS)


@pytest.mark.parametrize(("num_rows", "repeats"), [(30, 8), (96, 8), (200, 4), (384, 2), (766, 2), (768, 1), (1500, 1)])
def test_a_small_file_is_searched_with_more_responses_a_prompt(tmp_path, num_rows, repeats):
    rows = [{"question": f"{i}+1=", "answer": i + 1} for i in range(num_rows)]
    found = opened({"path": str(mirrors.write_jsonl(tmp_path / "a.jsonl", rows))})
    [search], [confirm] = found.search, found.confirm
    assert (search.repeats, confirm.repeats, len(confirm.samples)) == (repeats, MOST_REPEATS, round(num_rows * 2 / 3))
    assert search.num_responses >= LEAST_SEARCHED or repeats == MOST_REPEATS


def test_tasks_add_up_to_the_least_responses_and_a_guard_counts_for_itself(tmp_path):
    files = []
    for name, num in (("a", 300), ("b", 150), ("c", 60), ("d", 3000)):
        rows = [{"question": f"{name}{i}", "answer": i} for i in range(num)]
        files.append({"path": str(mirrors.write_jsonl(tmp_path / f"{name}.jsonl", rows))})
    guards = [each | {"guard": {"max_drop": 0.1}} for each in files[2:]]
    found = opened(*files[:2], *guards)
    assert [(len(part.samples), part.repeats) for part in found.search] == [(100, 2), (50, 2), (20, 8), (1000, 1)]
    assert [part.repeats for part in opened(files[0] | {"repeats": 3}, files[1]).search] == [3, 2]


def test_choices_and_messages_and_prompts_of_ones_own(tmp_path):
    choices = [{"q": f"{i}?", "options": [f"{i}", f"{i + 1}", "none"], "right": i % 3} for i in range(3)]
    chats = [
        {"chat": [{"role": "system", "content": "be short"}, {"role": "user", "content": f"{i}{{question}}"}],
         "answer": i}
        for i in range(3)
    ]  # fmt: skip
    found = opened(
        {"path": str(mirrors.write_jsonl(tmp_path / "mc.jsonl", choices)), "question": "q", "choices": "options",
         "answer": "right", "prompt": "{letters} of {choices} for {question} in {}"},
        {"path": str(mirrors.write_jsonl(tmp_path / "chat.jsonl", chats)), "messages": "chat"},
        {"path": str(mirrors.write_jsonl(tmp_path / "math.jsonl", ROWS[:3])), "grader": "math"},
        {"path": str(mirrors.write_jsonl(tmp_path / "asked.jsonl", ROWS[3:6])),
         "prompt": "Compute {question} \\boxed{}"},
    )  # fmt: skip
    samples = [
        {sample.id: sample for sample in (*search.samples, *confirm.samples)}
        for search, confirm in zip(found.search, found.confirm, strict=True)
    ]
    assert [part.grader for part in found.search] == ["choice", "number", "math", "number"]
    assert samples[0]["2"].messages[0]["content"] == "ABC of A) 1\nB) 2\nC) none for 1? in {}"
    assert [samples[0][str(i)].target for i in (1, 2, 3)] == ["A", "B", "C"]
    assert [dict(each) for each in samples[1]["2"].messages] == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "1{question}"},
    ]
    assert samples[2]["1"].messages[0]["content"].endswith("put your final answer within \\boxed{}.")
    assert samples[3]["1"].messages[0]["content"] == "Compute 3+1= \\boxed{}"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("B", "B"), ("b", "B"), (1, "B"), ("1", "B"), (1.0, "B"), (0, "A"), (3, None), (-1, None), ("D", None),
     ("", None), ("AB", None), ("²", None), (1.5, None)],
)  # fmt: skip
def test_the_right_option_is_a_letter_or_an_index(tmp_path, answer, letter):
    rows = [{"question": f"{i}?", "options": ["x", "y", 7], "answer": answer} for i in range(2)]
    task = {"path": str(mirrors.write_jsonl(tmp_path / "a.jsonl", rows)), "choices": "options"}
    if letter:
        assert opened(task).search[0].samples[0].target == letter
    else:
        with pytest.raises(TaskError, match=r"line 1: 'answer' must be the letter of an option .A to C. or its index"):
            opened(task)


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"options": ["x", "x"]}, {"choices": "options"}, "must hold 2 to 26 different options, seen"),
        ({"options": ["x"]}, {"choices": "options"}, "must hold 2 to 26 different options"),
        ({"options": list(range(27))}, {"choices": "options"}, "must hold 2 to 26 different options"),
        ({"options": ["x", None]}, {"choices": "options"}, "an option in 'options' must be a text or a number"),
        ({}, {"choices": "options"}, r"no column 'options'; .*\(tasks.0.choices=COLUMN\)"),
        ({}, {"messages": "chat"}, r"no column 'chat'; .*\(tasks.0.messages=COLUMN\)"),
        ({"chat": "hello"}, {"messages": "chat"}, "'chat' must be a list with something in it, seen 'hello'"),
        ({"chat": [{"role": "robot", "content": "x"}]}, {"messages": "chat"}, "messages with 'role' .system, user"),
        ({"chat": ["x"]}, {"messages": "chat"}, "messages with 'role'"),
        ({"chat": [{"role": "user"}]}, {"messages": "chat"}, "a message's 'content' must be a text"),
        ({"chat": [{"role": "user", "content": " "}]}, {"messages": "chat"}, "a message's 'content' is empty"),
        (
            {"chat": [{"role": "assistant", "content": "y"}]},
            {"messages": "chat"},
            "'chat' must end with a question, or",
        ),
        ({"answer": "("}, {"grader": "regex"}, "grader 'regex' cannot compare with the answer '.'"),
        ({"answer": "AB"}, {"grader": "choice"}, "grader 'choice' cannot compare with the answer 'AB' .it is not a"),
        ({"answer": "\\frac{1"}, {"grader": "math"}, "grader 'math' cannot compare"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path, row, keys, message):
    file = mirrors.write_jsonl(tmp_path / "a.jsonl", [{"question": "a", "answer": "A", **row}])
    with pytest.raises(TaskError, match=rf"a.jsonl, line 1: .*{message}") as caught:
        opened({"path": str(file), **keys})
    assert "\n" not in str(caught.value)


def test_the_same_question_with_other_options_is_another(tmp_path):
    rows = [{"question": "Which?", "options": [f"{i}", f"{i + 1}"], "answer": 0} for i in (1, 3)]
    assert opened({"path": str(mirrors.write_jsonl(tmp_path / "a.jsonl", rows)), "choices": "options"})
    rows[1]["options"] = ["2", "1"]
    with pytest.raises(TaskError, match=r"1 rows; at least 2 .*1 rows repeat a prompt .*\(line 2 as line 1\)"):
        opened({"path": str(mirrors.write_jsonl(tmp_path / "a.jsonl", rows)), "choices": "options"})


def test_confirmed_on_another_split_or_on_another_set(tmp_path):
    folder = mirrors.jsonl_folder(tmp_path / "mine", {"train": ROWS[:8], "dev": ROWS[8:14], "test": ROWS[14:]})
    other = mirrors.write_jsonl(tmp_path / "other.csv.jsonl", ROWS[16:])
    asked = {"path": str(folder), "split": "train"}
    by_split = opened(asked | {"confirm_split": "dev"})
    assert set(prompts(by_split.search[0])) == {row["question"] for row in ROWS[:8]}
    assert set(prompts(by_split.confirm[0])) == {row["question"] for row in ROWS[8:14]}
    by_name = opened(asked | {"confirm_on": str(other)})
    assert set(prompts(by_name.confirm[0])) == {row["question"] for row in ROWS[16:]}
    by_keys = opened(asked | {"confirm_on": {"path": str(folder), "split": "test", "grader": "exact"}})
    assert set(prompts(by_keys.confirm[0])) == {row["question"] for row in ROWS[14:]}
    assert (by_keys.search[0].grader, by_keys.confirm[0].grader) == ("number", "exact")
    assert by_keys.search[0].task == by_keys.confirm[0].task == "mine/mine"
    same = opened(asked | {"confirm_split": "train"}, confirm={"share": 0.5})  # then its rows are shared out
    assert len(same.search[0].samples) == len(same.confirm[0].samples) == 4


def test_what_one_file_confirms_on_is_left_out_of_the_other_that_is_searched_on(tmp_path, path):
    rows = [{"question": "new", "answer": 1}, {"question": " 4+1=\n", "answer": 5}]
    leaking = mirrors.write_jsonl(tmp_path / "other.jsonl", rows)
    found = opened({"path": path, "confirm_on": str(leaking)})
    assert "4+1=" not in prompts(found.search[0]) and len(found.search[0].samples) == 19
    assert found.notes == (f"{path}: 1 of its prompts are in {leaking} too and are left out of the search",)
    with pytest.raises(TaskError, match=r"all of its prompts are in .* too; confirm on another set"):
        opened({"path": path, "confirm_on": path})


@pytest.mark.parametrize("grader", ["number", "math"])
def test_a_leak_from_one_task_into_another_is_an_error(tmp_path, path, grader):
    """Also where the two tasks ask in other words around it."""
    again = mirrors.write_jsonl(tmp_path / "again.jsonl", ROWS[::-1])
    with pytest.raises(TaskError, match=r"the prompt '\d+\+1=' is searched on .* and confirmed on .*; remove it"):
        opened({"path": path}, {"path": str(again), "grader": grader}, search={"seed": 1})


def test_in_a_published_set_what_is_confirmed_on_is_left_out_of_the_search(tmp_path):
    searched = mirrors.write_jsonl(tmp_path / "train.jsonl", mirrors.math500(5, 8))
    held_back = mirrors.write_jsonl(tmp_path / "test.jsonl", mirrors.math500(10, 6))
    task = {"name": "math500", "path": str(searched), "confirm_on": {"name": "math500", "path": str(held_back)}}
    found = opened(task)
    assert {sample.id for sample in found.search[0].samples} == {f"test/prealgebra/{i}.json" for i in range(5, 10)}
    assert len(found.confirm[0].samples) == 6
    assert f"{searched}: 3 of its prompts are in {held_back} too and are left out of the search" in found.notes
    with pytest.raises(TaskError, match=r"all of its prompts are in .* too; confirm on another set"):
        opened(task | {"confirm_on": {"name": "math500", "path": str(searched)}})


def test_a_published_set_that_holds_a_prompt_twice_is_taken_once(tmp_path):
    file = mirrors.write_jsonl(tmp_path / "a.jsonl", [*mirrors.gsm8k(5, 4), *mirrors.gsm8k(7, 2)])
    found = opened({"name": "gsm8k", "path": str(file)})
    assert len(found.search[0].samples) + len(found.confirm[0].samples) == 4
    assert found.notes == (f"{file}: 2 of its prompts or ids are repeated; each is taken once",)


LOCAL = {
    "hiyouga/math12k": {"train": mirrors.math12k(100, 40), "test": mirrors.math12k(5, 10)},
    "math500": {"test": mirrors.math500(5, 10)},
    "aime24": {"train": mirrors.aime24(100, 30)},
    "aime25": {"test": mirrors.aime25(100, 30)},
    "ifeval": {"train": mirrors.ifeval(5, 20)},
}
EXPECTED = {
    "math.yaml": ({"math": ("math", 40, 7)}, {"math": ("math", 10, 8)}, 0),
    "aime.yaml": ({"aime24/aime25": ("math", 30, 8)}, {"aime24/aime25": ("math", 30, 8)}, 1),
    "gpqa-ifeval.yaml": (
        {"gpqa": ("choice", 14, 2), "ifeval": ("ifeval", 7, 8)},
        {"gpqa": ("choice", 6, 4), "ifeval": ("ifeval", 13, 4)},
        2,
    ),
    "qwen3-4b.yaml": ({"math": ("math", 40, 7)}, {"math": ("math", 10, 2)}, 0),
    "qwen3-30b-a3b.yaml": ({"math": ("math", 40, 7)}, {"math": ("math", 10, 2)}, 0),
    "llama-8b-r1.yaml": ({"math": ("math", 40, 7)}, {"math": ("math", 10, 2)}, 0),
    "bundled.yaml": ({"arithmetic": ("number", 512, 1)}, {"arithmetic": ("number", 1024, 8)}, 0),
    "own-models.yaml": ({"my": ("number", 7, 8)}, {"my": ("number", 13, 8)}, 0),
}


def localised(source: dict, folder: Path) -> dict:
    """The source with a local copy in place of the hub."""
    if source.get("name") == "arithmetic":
        return source
    if "path" in source:
        return source | {"path": str(mirrors.write_jsonl(folder / source["path"], ROWS))}
    name = source.pop("hub", source.get("name"))
    if name == "gpqa_diamond":
        copy = folder / "gpqa"
        for subset, rows in (("gpqa_extended", mirrors.gpqa(0, 20)), ("gpqa_diamond", mirrors.gpqa(3, 6))):
            mirrors.jsonl_folder(copy / subset, {"train": rows})
    else:
        copy = mirrors.jsonl_folder(folder / name, LOCAL[name])
    return source | {"path": str(copy)}


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_the_shipped_configs_open(tmp_path, name):
    plain = yaml.safe_load((CONFIGS / name).read_text())
    tasks = []
    for task in plain["tasks"]:
        other = task.get("confirm_on")
        tasks.append(
            localised(task, tmp_path) | ({"confirm_on": localised({"name": other}, tmp_path)} if other else {})
        )
    found = slices_of(parse_config(plain | {"tasks": tasks}))
    search, confirm, num_notes = EXPECTED[name]
    assert {part.task: (part.grader, len(part.samples), part.repeats) for part in found.search} == search
    assert {part.task: (part.grader, len(part.samples), part.repeats) for part in found.confirm} == confirm
    assert len(found.notes) == num_notes
    assert not {p for part in found.search for p in prompts(part)} & {
        p for part in found.confirm for p in prompts(part)
    }
