"""Tables whose quotes are wrong: the lines that they cost are told, and a quote that never closes is refused."""

import pytest

from autolambda.errors import TaskError
from autolambda.tasks.rows import read_file


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("a.csv", 'a,b\n1,2\n"x" y,2\n3,4\n', ["line 3"]),
        ("a.tsv", 'a\tb\n1\t2\n"x" y\t2\n3\t4\n', ["line 3"]),
        ("a.csv", 'sep=;\na;b\n1;2\n"x" y;2\n3;4\n', ["line 4"]),
        # an open quote takes in rows until the next quote: each of them counts
        ("a.csv", 'a,b\n1,2\n"x,2\n3,4\n"y",6\n5,6\n', ["line 3", "line 4", "line 5"]),
    ],
)
def test_a_wrong_quote_costs_its_lines_and_not_the_file(tmp_path, name, content, bad):
    path = tmp_path / name
    path.write_text(content)
    rows = read_file(path)
    assert [row.place for row in rows if row.problem] == bad
    assert all(row.problem[0] == "not CSV" for row in rows if row.problem)
    assert [row.cells["a"] for row in rows if not row.problem] == (["1", "5"] if len(bad) > 1 else ["1", "3"])


def test_a_quote_that_never_closes_is_refused_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n"x,2\n3,4\n')
    with pytest.raises(TaskError, match="cannot be read: a quote in line 3 never closes; put a text with commas"):
        read_file(path)
