"""What a stored result may replace, and where what gives way is found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.result_file import ResultFile, history, stored_results
from bnoise_cli.storage import locked, read_json, read_plain, write_whole

ANSWER = {"value": 100.0, "low": 90.0, "high": 110.0}
OPEN = {"value": None, "low": 3.0, "high": None}


def result(critical: dict[str, Any] = ANSWER, *codes: str, name: str = "") -> dict[str, Any]:
    """A result as far as storing reads it."""
    doubts = [{"code": code} for code in codes]
    return {
        "schema_version": 1,
        "kind": "probe",
        "config_hash": name,
        "critical_batch_size": critical,
        "doubts": doubts,
    }


GOOD, INTERRUPTED, UNKNOWN = result(), result(ANSWER, "interrupted"), result(OPEN, "failed")
# One step alone, with a horizon asked for and without.
ONE_STEP = {**result(ANSWER, "one_step"), "config": {"probe": {"horizon": "auto"}}}
ASKED_FOR = {**ONE_STEP, "config": {"probe": {"horizon": "off"}}}


@pytest.mark.parametrize(
    ("earlier", "later", "replaced"),
    [
        (GOOD, GOOD, True),
        (GOOD, result(name="another config"), True),
        (GOOD, UNKNOWN, False),
        (GOOD, INTERRUPTED, False),
        (GOOD, result(OPEN), False),
        (GOOD, result({**ANSWER, "high": 1e6}), False),
        (INTERRUPTED, UNKNOWN, False),
        (INTERRUPTED, INTERRUPTED, True),
        (UNKNOWN, GOOD, True),
        (UNKNOWN, UNKNOWN, True),
        (GOOD, ONE_STEP, False),
        (ONE_STEP, UNKNOWN, True),
        (ASKED_FOR, UNKNOWN, False),
        ({**ONE_STEP, "config": {"probe": 3}}, UNKNOWN, True),
        ({**GOOD, "doubts": "x", "critical_batch_size": "x"}, UNKNOWN, True),
    ],
)
def test_a_worse_result_never_replaces_a_better_one(
    tmp_path: Path, earlier: dict[str, Any], later: dict[str, Any], replaced: bool
) -> None:
    path = tmp_path / ".bnoise" / "lr0.1.probe.json"
    ResultFile(path).store(earlier)
    said = ResultFile(path).store(later)
    [other] = history(path)
    first, second = (other, path) if replaced else (path, other)
    assert read_json(first) == earlier
    assert read_json(second) == later
    assert f"The result is in {second}" in said
    assert str(first) in said
    assert stored_results(path.parent) == [path, other]


def test_a_command_that_stores_twice_replaces_its_own_result(tmp_path: Path) -> None:
    for earlier in ([], [GOOD]):
        path = tmp_path / f"{len(earlier)}.json"
        for data in earlier:
            ResultFile(path).store(data)
        file = ResultFile(path)
        for data in (UNKNOWN, GOOD):
            file.store(data)
        assert read_json(path) == GOOD
        assert len(history(path)) == len(earlier)


def test_other_names_have_another_history(tmp_path: Path) -> None:
    names = ["lr0.1", "lr0.2", "lr0.1.json", "lr0", "lr0.1.x.json"]
    for name in names:
        for _ in range(2):
            ResultFile(tmp_path / name).store(result(name=name))
    for name in set(names) - {"lr0.1.json"}:
        found = {read_json(path)["config_hash"] for path in history(tmp_path / name)}
        assert found == ({"lr0.1", "lr0.1.json"} if name == "lr0.1" else {name})


def test_what_is_not_a_result_or_is_read_is_not_replaced(tmp_path: Path) -> None:
    code, other = tmp_path / "u.py", tmp_path / "notes.json"
    for path, text in ((code, "x = 1"), (other, '{"kind": "notes"}')):
        path.write_text(text)
        with pytest.raises(CallError, match="is not a result of bnoise"):
            ResultFile(path).require()
        ResultFile(path).store(GOOD)  # it came while measuring
        assert path.read_text() == text
        assert [read_json(each) for each in history(path)] == [GOOD]
    earlier = tmp_path / "r.json"
    ResultFile(earlier).store(GOOD)
    (tmp_path / "link.json").symlink_to(earlier)
    with pytest.raises(CallError, match="which is read"):
        ResultFile(tmp_path / "link.json").require([earlier])


def test_the_path_is_that_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = ResultFile(Path("r.json"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    assert file.store(GOOD) == "The result is in r.json."
    assert read_json(tmp_path / "r.json") == GOOD


def test_any_text_and_any_mode_survive(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    data = {**GOOD, "said": "caf\udce9 \x00 é"}
    ResultFile(path).store(data)
    assert read_json(path) == data
    path.chmod(0o600)
    ResultFile(path).store(GOOD)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RunError, match="could not be written"):
        ResultFile(path).store({**GOOD, "cost": float("nan")})
    assert read_json(path) == GOOD


def test_a_lock_holds_until_its_owner_ends(tmp_path: Path) -> None:
    file = tmp_path / "x"
    raised = pytest.raises(CallError, match="another call of bnoise")
    with locked(file, wait=False), raised, locked(file, wait=False):
        pass
    with locked(file, wait=False):
        pass
    script = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom bnoise_cli.storage import locked\n"
        "with locked(Path(sys.argv[1]), wait=False):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    with locked(file, wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "link", "link to itself", "folder"])
def test_what_lies_in_the_place_of_a_lock_is_found_before_measuring(tmp_path: Path, kind: str) -> None:
    place, other = tmp_path / ".r.json.lock", tmp_path / "other"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "link":
            place.symlink_to(other)
        case "link to itself":
            place.symlink_to(place)
        case "folder":
            place.mkdir()
    with pytest.raises(CallError, match="cannot be locked"):
        ResultFile(tmp_path / "r.json").require()
    assert not other.exists()


def test_a_name_that_leaves_no_room_for_a_history_is_refused_before_measuring(tmp_path: Path) -> None:
    for path in ("\0.json", "x/" * 2000 + "r.json"):
        with pytest.raises(CallError, match="a folder that can be written is needed"):
            ResultFile(tmp_path / path).require()
    with pytest.raises(CallError, match="200 bytes"):
        ResultFile(tmp_path / f"{'é' * 98}.json").require()
    longest = tmp_path / f"{'é' * 97}.json"
    for each in (GOOD, result(name="new")):
        file = ResultFile(longest)
        file.require()
        file.store(each)
    assert [read_json(path) for path in history(longest)] == [GOOD]


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), True, "9", [9], None])
def test_any_number_in_an_earlier_result_lets_the_later_one_be_stored(tmp_path: Path, number: Any) -> None:
    path = tmp_path / "r.json"
    found = {"value": number, "low": number, "high": number}
    path.write_text(json.dumps({**GOOD, "config_hash": "odd", "critical_batch_size": found}))
    ResultFile(path).store(GOOD)
    assert read_json(path) == GOOD
    assert [read_json(each)["config_hash"] for each in history(path)] == ["odd"]


def test_only_plain_files_are_a_history(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    ResultFile(path).store(GOOD)
    folder = tmp_path / ".bnoise/history"
    folder.mkdir(parents=True)
    (folder / "r.20260101T000000Z.json").symlink_to("gone")
    (folder / "r.20260101T000001Z.json").mkdir()
    os.mkfifo(folder / "r.20260101T000002Z.json")
    assert history(path) == []
    ResultFile(path).store(result(name="new"))
    assert [read_json(each) for each in history(path)] == [GOOD]


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "device", "folder", "large", "not there"])
def test_only_plain_files_of_a_bounded_size_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "device":
            path = Path("/dev/urandom")
        case "folder":
            path.mkdir()
        case "large":
            path.write_bytes(b"0" * 101)
    with pytest.raises(OSError, match=r"plain file|folder|larger|No such"):
        read_plain(path, 100)


@pytest.mark.parametrize("text", ["[" * 100 + "]" * 100, "[" * 100_000, "{", "9" * 5000, "nul", ""])
def test_json_that_is_deep_long_or_torn_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(CallError, match="is not JSON, or torn"):
        read_json(tmp_path / "r.json")


class KilledError(BaseException):
    """The process ends here, as at a kill."""


_CALLS = [
    "open",
    "write",
    "fsync",
    "close",
    "rename",
    "replace",
    "link",
    "unlink",
    "mkdir",
    "chmod",
    "truncate",
]


def run_and_kill(monkeypatch: pytest.MonkeyPatch, at: int, doing: Any) -> bool:
    """Do something that is killed before its system call number `at`, counted over the calls that change files.

    Returns:
        Whether it was killed.
    """
    count = [0]

    def guarded(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if count[0] >= at:
                raise KilledError
            count[0] += 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in _CALLS:
            patched.setattr(os, name, guarded(getattr(os, name)))
        try:
            doing()
        except KilledError:
            return True
    return False


def test_a_kill_at_any_system_call_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cleaning up of a killed process is killed too: every call after the fatal one fails."""
    old, new = result(name="old"), result(name="new")
    at, killed = 0, True
    while killed:
        path = tmp_path / str(at) / "r.json"
        ResultFile(path).store(old)
        killed = run_and_kill(monkeypatch, at, lambda path=path: ResultFile(path).store(new))
        there = read_json(path)
        assert there in (old, new)
        assert there == old or read_json(history(path)[0]) == old
        if not killed:
            assert there == new
        at += 1
    assert at > 8


def test_a_new_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, killed = 0, True
    while killed:
        path = tmp_path / str(at) / "bnoise.yaml"
        killed = run_and_kill(
            monkeypatch, at, lambda path=path: write_whole(path, lambda file: file.write(b"text"), new=True)
        )
        assert not path.exists() or path.read_bytes() == b"text"
        assert path.exists() or killed
        at += 1
    with pytest.raises(FileExistsError):
        write_whole(path, lambda file: file.write(b"other"), new=True)
    assert path.read_bytes() == b"text"
    assert json.dumps([each.name for each in path.parent.iterdir()]) == '["bnoise.yaml"]'
