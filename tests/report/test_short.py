"""The short report of `bnoise probe` and `bnoise sweep`: what the whole one has, less, in the same order."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bnoise_cli.advice.advise import advise
from bnoise_cli.records import CriticalBatchSize
from bnoise_cli.report.document import Grid, Section, in_short
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.results.branch import branch_result
from bnoise_cli.results.horizon import horizon_doubts
from bnoise_cli.results.probe import ProbeResult
from bnoise_cli.results.result import Result
from bnoise_cli.results.sweep import SweepResult, sweep_result
from bnoise_cli.spec.load import load_spec
from tests.cases import QUADRATIC_CONFIG, TINY_SWEEP, Call, Write
from tests.samples import (
    BRANCHES,
    HORIZON,
    POINT,
    ahead,
    level,
    result,
    store,
    sweep_run,
    timed,
    training_run,
)

WIDTH = 80
Golden = Callable[[str, str], None]


def printed(sections: list[Section]) -> str:
    """As at a terminal of 80 columns, where the verdict stands last once more."""
    again = sections[:1]
    return render(layout([*sections, *again], WIDTH), width=WIDTH, color=False, encoding="utf-8")


def whole(found: Result, other: Result | None = None) -> list[Section]:
    beside = [(".bnoise/digits.other.json", other)] if other is not None else []
    return report_sections([("r", found)], drawing_width=WIDTH, beside=beside)


def probed() -> ProbeResult:
    """A horizon whose critical batch size still falls."""
    levels = (level(8, 90.0, 0.33), level(16, 60.0, 0.28), level(32, 42.0, 0.2))
    moving = dataclasses.replace(HORIZON, stands_still=False, levels=levels)
    doubts = tuple(horizon_doubts(dataclasses.replace(POINT, horizon=moving), is_off=False))
    assert [doubt.code for doubt in doubts] == ["horizon_moves"]
    found = ahead(moving)
    return dataclasses.replace(found, doubts=(*doubts, *found.doubts))


def swept(write: Write) -> SweepResult:
    """A sweep whose planned run is at half the best rate, and which one step alone does not predict."""
    spec = load_spec(write("q.yaml", TINY_SWEEP), ["training.batch_size=64", "optimizer.lr=0.05"])
    run = sweep_run({size: 100 * (1 + 50 / size) for size in (8, 16, 32, 64, 128, 256)})
    slow = training_run(64, 320.0, learning_rate=0.05)
    made = sweep_result(dataclasses.replace(run, runs=(*run.runs, slow)), spec)
    return advise(dataclasses.replace(made, throughput=timed()))


def takes(found: Result) -> list[tuple[str, ...]]:
    """The rows on what training takes."""
    [grid] = [s.parts[0] for s in in_short(whole(found)) if s.title.startswith("Training to a loss")]
    assert isinstance(grid, Grid)
    return list(grid.rows)


def unresolved() -> ProbeResult:
    unknown = CriticalBatchSize(value=None, low=40.0, high=None, basis="probe")
    return advise(result(critical_batch_size=unknown))


def branched(write: Write) -> Result:
    spec = load_spec(write("q.yaml", TINY_SWEEP), ["sweep.branch={examples: 2000, tolerance: 0.01}"])
    return branch_result(sweep_run({}, chosen={}, trajectory=(), branches=BRANCHES), spec)


def test_a_short_probe_fits_fifty_lines(golden: Golden, write: Write) -> None:
    sections = whole(probed(), swept(write))
    short = printed(in_short(sections))
    golden("horizon", printed(sections))
    golden("horizon_short", short)
    assert len(short.splitlines()) <= 50


def test_a_short_sweep_fits_forty_five_lines(golden: Golden, write: Write) -> None:
    sections = whole(swept(write), ahead())
    short = printed(in_short(sections))
    golden("sweep_timed", printed(sections))
    golden("sweep_short", short)
    assert len(short.splitlines()) <= 45


def test_the_whole_report_has_every_section_of_the_short_one_in_the_same_order(write: Write) -> None:
    for found in (probed(), swept(write), unresolved(), branched(write)):
        sections = whole(found)
        short = in_short(sections)
        titles = [section.title for section in sections]
        assert [titles.index(section.title) for section in short] == sorted(
            titles.index(section.title) for section in short
        )
        assert short[0] == sections[0]
        for section in short:
            [full] = [each for each in sections if each.title == section.title]
            assert section.headline == full.headline
            for part, its in zip(section.parts, full.parts, strict=True):
                if isinstance(part, Grid):
                    assert isinstance(its, Grid)
                    rows = iter(its.rows)
                    assert all(row in rows for row in part.rows)
                    assert part.columns == its.columns
                else:
                    assert part == its


def test_the_short_trade_off_has_every_doubling_and_every_named_row() -> None:
    [full] = [s.parts[0] for s in whole(ahead()) if s.title == "Trade-off"]
    [short] = [s.parts[0] for s in in_short(whole(ahead())) if s.title == "Trade-off"]
    assert isinstance(full, Grid)
    assert isinstance(short, Grid)
    assert {row for row in full.rows if row[-1]} <= set(short.rows)
    assert [short.rows[i] for i in sorted(short.strong)] == [full.rows[i] for i in sorted(full.strong)]
    unnamed = [int(row[0].replace(",", "")) for row in short.rows if not row[-1]]
    assert unnamed
    assert all(larger >= 2 * smaller for smaller, larger in pairwise(unnamed))


def test_a_planned_run_that_did_not_arrive_takes_more_than_it_was_trained(write: Write) -> None:
    found = swept(write)
    assert [row[:4] for row in takes(found)] == [
        ("planned", "64", "0.0500", "320"),
        ("planned batch, best rate", "64", "0.100", "180"),
        ("recommended", "24", "0.100", "310"),
    ]
    late = [
        dataclasses.replace(run, steps=None, reached=False, examples=64 * 410)
        if run.learning_rate == 0.05
        else run
        for run in found.runs
    ]
    assert takes(dataclasses.replace(found, runs=tuple(late)))[0][:4] == (
        "planned",
        "64",
        "0.0500",
        "over 410",
    )


def test_measurements_that_agree_are_a_detail_and_one_that_differs_is_not(write: Write) -> None:
    def mentions(critical: float) -> list[str]:
        other = dataclasses.replace(
            swept(write),
            critical_batch_size=CriticalBatchSize(
                value=critical, low=0.9 * critical, high=1.1 * critical, basis="sweep"
            ),
        )
        return [section.title for section in in_short(whole(ahead(), other))]

    assert "Other measurements" not in mentions(50.0)
    assert "Other measurements" in mentions(80.0)


def test_verbose_prints_the_report_and_the_last_line_says_where_it_is(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, short, err = bnoise("probe", config, "--out", "my results/r.json")
    assert code == 0, err
    *_, last = err.splitlines()
    assert last == "`bnoise report 'my results/r.json'` shows the whole report."
    code, full, _ = bnoise(*shlex.split(last.split("`")[1])[1:])
    assert code == 0
    assert len(short.splitlines()) < len(full.splitlines())
    assert "\nCritical batch size  " in full
    assert "\nCritical batch size  " not in short
    code, verbose, err = bnoise("probe", config, "-v", "--out", "again.json")
    assert code == 0
    assert err == "The result is in again.json.\n"
    assert verbose == bnoise("report", "again.json")[1]


def test_the_last_line_names_the_file_if_a_better_result_keeps_its_place(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    store(config)
    _, _, err = bnoise("probe", config, "--set", "probe.max_examples=600", "--set", "probe.precision=0.01")
    named = shlex.split(err.splitlines()[-1].split("`")[1])[-1]
    assert f"The result is in {named}; the better result in .bnoise/quad.probe.json is kept." in err
    assert Path(named).exists()


def test_quiet_and_verbose_exclude_each_other(bnoise: Call, write: Write) -> None:
    config = str(write("quad.yaml", QUADRATIC_CONFIG))
    code, out, err = bnoise("probe", config, "--quiet", "--verbose")
    assert (code, out) == (2, "")
    assert "--quiet prints the verdict alone and --verbose the whole report; found both." in err
    assert not Path(".bnoise").exists()


@pytest.mark.parametrize("options", [("--quiet",), ("--json",), ("--verbose",)])
def test_nothing_points_to_the_rest_where_nothing_is_missing_or_wanted(
    bnoise: Call, write: Write, options: tuple[str, ...]
) -> None:
    _, _, err = bnoise("probe", str(write("quad.yaml", QUADRATIC_CONFIG)), *options)
    assert "shows the whole report" not in err
