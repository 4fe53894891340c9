"""The ledger of a sweep: what is gone on with, what is put aside, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnoise_cli.errors import CallError
from bnoise_cli.ledger import Ledger, ledger_path
from bnoise_cli.storage import beside
from tests.test_result_file import run_and_kill


def entries(path: Path, belongs_to: str) -> list[int]:
    """The numbers of the entries that a sweep of some config would go on with."""
    return [entry["n"] for entry in Ledger(path, belongs_to).entries]


def add(path: Path, belongs_to: str, number: int) -> None:
    Ledger(path, belongs_to).append({"kind": "x", "n": number})


def test_opening_a_ledger_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    Ledger(path, "a")
    assert list(tmp_path.iterdir()) == []
    add(path, "a", 1)
    before = path.read_bytes()
    assert Ledger(path, "b").in_the_way == "The config has changed"
    path.write_bytes(before + b"{torn")
    Ledger(path, "a")
    assert path.read_bytes() == before + b"{torn"
    assert [each.name for each in tmp_path.iterdir()] == ["runs.jsonl"]


def test_a_ledger_of_other_data_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    Ledger(path, "a", {"x.npy": "1"}).append({"kind": "x", "n": 1})
    for data in ({}, {"x.npy": "1"}, {"x.npy": "1", "downloaded.npy": "2"}):
        assert len(Ledger(path, "a", data).entries) == 1
    other = Ledger(path, "a", {"x.npy": "2"})
    assert (other.entries, other.in_the_way) == ([], "The data have changed")


def test_a_ledger_put_aside_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / ".bnoise" / "q.sweep.runs.jsonl"
    for number, config in enumerate("abcab"):
        add(path, config, number)
    assert [entries(path, config) for config in "abcd"] == [[0, 3], [1, 4], [2], []]
    add(path, "c", 5)
    assert [entries(path, config) for config in "abc"] == [[0, 3], [1, 4], [2, 5]]


def test_a_damaged_first_line_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for number in (1, 2):
        add(path, "a", number)
    damaged = path.read_bytes().replace(b"{", b"<", 1)
    path.write_bytes(damaged)
    ledger = Ledger(path, "a")
    assert ledger.in_the_way == "The first line of runs.jsonl is damaged"
    ledger.append({"kind": "x", "n": 3})
    assert entries(path, "a") == [3]
    assert damaged in [each.read_bytes() for each in (tmp_path / ".bnoise/history").iterdir()]


def test_names_are_appended_to() -> None:
    assert ledger_path(Path("lr0.1")) == Path("lr0.1.runs.jsonl")
    assert ledger_path(Path(".bnoise/q.sweep.json")) == Path(".bnoise/q.sweep.runs.jsonl")
    assert beside(Path("a.b.json"), ".x") == Path("a.b.x")


def test_two_sweeps_do_not_write_one_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.jsonl", "a")
    with ledger.held(), pytest.raises(CallError, match="another call"), Ledger(ledger.path, "b").held():
        pass


@pytest.mark.parametrize("config", ["a", "b", "c"])
def test_a_kill_at_any_system_call_loses_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    """Ledgers of a, b (torn) in the history and at the path; the next entry is of each of them, or of a third."""
    at, killed = 0, True
    while killed:
        path = tmp_path / str(at) / "runs.jsonl"
        add(path, "a", 1)
        add(path, "b", 2)
        with path.open("ab") as file:
            file.write(b'{"kind": "x", "n": 3}')
        killed = run_and_kill(monkeypatch, at, lambda path=path: add(path, config, 9))
        found = {each: entries(path, each) for each in "abc"}
        known: dict[str, list[int]] = {"a": [1], "b": [2], "c": []}
        assert found.pop(config) in (known[config], [*known[config], 9])
        assert found == {each: known[each] for each in found}
        at += 1
    assert entries(path, config)[-1] == 9
