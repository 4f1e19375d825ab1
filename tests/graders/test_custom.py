"""A user's own grader: how it is found, what it may return, and what is said of anything else."""

import pytest

from autolambda.errors import TaskError
from autolambda.graders.custom import load
from autolambda.graders.grading import find_grader

SOURCE = """
def yes(text, target): return text == target
def pair(text, target): return text[:1] or None, text == target
def nothing(text, target): return None
def number(text, target): return 1
def words(text, target): return "a\\nb" * 200
def wrong_pair(text, target): return 7, True
def longer(text, target): return "a", True, 1
def raises(text, target): raise KeyError(text)
class Callable:
    def __call__(self, text, target): return True
instance = Callable()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_grader_of_a_user.py").write_text(SOURCE)
    package = tmp_path / "own_package_of_a_user"
    package.mkdir()
    (package / "inside.py").write_text(SOURCE)
    (package / "broken.py").write_text("import nothing_of_that_name\n")
    (package / "leaves.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    yield tmp_path
    find_grader.cache_clear()


@pytest.mark.parametrize(
    ("function", "text", "answer", "correct"),
    [
        ("yes", " 7", "7", False),
        ("yes", "7", "7", True),
        ("yes", "", None, False),
        ("pair", "7", "7", True),
        ("pair", "8", "8", False),
        ("pair", "", None, False),
        ("nothing", "7", None, False),
        ("instance", "8", "8", True),
    ],
)
@pytest.mark.parametrize(
    "path", ["own_grader_of_a_user:", "own_package_of_a_user.inside:", "own_package_of_a_user.inside."]
)
def test_what_it_may_return(folder, path, function, text, answer, correct):
    grader = find_grader(path + function)
    parsed = grader.grade(text, "7")
    assert (parsed.answer, parsed.correct) == (answer, correct)
    assert grader.quick(text, "7") is None
    assert not grader.is_quick


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "returned 1, not a bool"),
        ("words", "returned 'a"),
        ("wrong_pair", r"\(7, True\)"),
        ("longer", "'a', "),
    ],
)
def test_nonsense_is_an_error_of_one_line(folder, function, message):
    with pytest.raises(TypeError, match=message) as caught:
        find_grader(f"own_grader_of_a_user:{function}").grade("7", "7")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_its_own_error_comes_through(folder):
    with pytest.raises(KeyError, match="7"):
        find_grader("own_grader_of_a_user:raises").grade("7", "7")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("broken", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("leaves", "SystemExit: 3"),
        ("absent", "No module named 'own_package_of_a_user.absent'"),
    ],
)
def test_a_module_that_cannot_be_imported(folder, module, message):
    with pytest.raises(TaskError, match=message) as caught:
        load(f"own_package_of_a_user.{module}:f")
    assert str(folder) in str(caught.value)
