"""What is printed, drawn and written from results."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.records import CriticalBatchSize, Estimate, NoiseScale
from bnoise_cli.report.chart import improvement_chart
from bnoise_cli.report.export.page import PAGE, write_page
from bnoise_cli.report.export.plot import PLOT
from bnoise_cli.report.kinds import report_kind
from bnoise_cli.report.plots.draw import draw, plot_results
from bnoise_cli.report.plots.tradeoff import trained
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.results.kinds import KINDS
from bnoise_cli.results.probe import ProbeResult
from tests.cases import legend
from tests.samples import ahead, plan, result
from tests.sweeping.test_branches import branches


def shown(
    *results: ProbeResult, width: int = 100, color: bool = False, encoding: str = "utf-8", chart: bool = False
) -> str:
    named = [(f"r{i}", one) for i, one in enumerate(results)]
    sections = report_sections(named, drawing_width=width if chart else None)
    return render(layout(sections, width), width=width, color=color, encoding=encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = shown(result(), width=width, color=False, encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= width
    assert "Critical batch size" in text


def test_a_terminal_without_unicode_gets_ascii() -> None:
    text = shown(result(), width=100, color=False, encoding="ascii")
    assert text.isascii()
    assert "tr(S)/|G|^2" in text
    assert "+- " in text
    assert "?" not in text


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[" in shown(result(), width=100, color=True, encoding="utf-8")
    assert "\x1b[" not in shown(result())


def test_an_open_or_wide_interval_does_not_resolve_it() -> None:
    unknown = result(
        noise_scale=NoiseScale(value=None, low=40.0, high=None),
        critical_batch_size=CriticalBatchSize(value=None, low=40.0, high=None, basis="probe"),
        tradeoff=(),
    )
    assert not unknown.resolved
    wide = CriticalBatchSize(value=100.0, low=30.0, high=310.0, basis="probe")
    assert not result(critical_batch_size=wide).resolved
    assert result().resolved


def test_pictures_are_drawn_in_every_format(tmp_path: Path) -> None:
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plot_results([("r", plan(world_size=2))], tmp_path / f"p{ending}")
        assert (tmp_path / f"p{ending}").read_bytes().startswith(start)
    with pytest.raises(CallError, match=r"\.png, \.svg, \.pdf"):
        PLOT.require(Path("p.jpg"))
    with pytest.raises(RunError, match="nothing to draw"):
        plot_results([("r", result(points=()))], tmp_path / "p.png")


def test_every_axis_has_a_name_and_no_label_lies_on_another() -> None:
    figure = draw([("r", plan(world_size=2, steps=1000))])
    figure.canvas.draw()
    assert len(figure.axes) == 3
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            inside = [
                box for box in boxes if axes.get_window_extent().expanded(1.3, 1.3).contains(box.x0, box.y0)
            ]
            assert not any(a.overlaps(b) for i, a in enumerate(inside) for b in inside[i + 1 :])


def test_several_results_are_compared_and_overlaid(tmp_path: Path) -> None:
    other = dataclasses.replace(plan(), critical_batch_size=CriticalBatchSize(
        value=None, low=300.0, high=None, basis="probe"))  # fmt: skip
    text = shown(plan(), other, width=120)
    assert text.startswith("Comparison\n")
    assert re.search(r"r0 .*100 .*90\.0–112", text)
    assert re.search(r"r1 .*\? .*at least 300", text)
    figure = draw([("small", plan()), ("large", plan())])
    names = legend(figure.axes[0])
    assert names == ["small", "large"]


def test_an_unresolved_result_draws_what_was_measured(tmp_path: Path) -> None:
    unknown = result(noise_scale=NoiseScale(value=None, low=40.0, high=None))
    assert len(draw([("r", unknown)]).axes) == 1
    assert len(draw([("r", plan())]).axes) == 3
    assert improvement_chart(unknown, 80) is None


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_chart_shows_points_law_and_noise_scale(width: int) -> None:
    chart = improvement_chart(plan(), width)
    assert chart is not None
    text = "\n".join(chart.lines)
    assert text.count("●") == 4 + 1
    assert "B_noise 100" in text
    assert all(len(line) <= width for line in chart.lines)
    assert improvement_chart(plan(), 40) is None
    assert "●" in shown(plan(), width=width, chart=True)
    assert shown(plan(), width=width, chart=True, encoding="ascii").isascii()


def texts(axes: Axes) -> str:
    """All that is written into axes, in their title and in their legend."""
    legend = axes.get_legend()
    words = [text.get_text() for text in (*axes.texts, *(legend.get_texts() if legend else ()))]
    return " | ".join([axes.get_title(loc="left"), *words])


def test_the_trade_off_says_of_each_batch_size_what_training_took() -> None:
    """The trained sizes follow the law of B_crit 42; other rows have neither steps nor a rate."""
    horizon, rows = ahead().horizon, ahead().tradeoff
    assert horizon is not None
    rates = {batch.batch_size: batch.learning_rate for batch in horizon.batches}
    trained = [row for row in rows if row.batch_size in rates]
    assert trained
    for row in rows:
        size = row.batch_size
        assert row.learning_rate == rates.get(size)
        expected = pytest.approx(1 + 42 / size, rel=0.05) if size in rates else None
        assert row.measured_steps_ratio == expected


def test_the_horizon_is_drawn_with_its_losses_the_step_before_it_and_the_plan() -> None:
    assert "critical batch size of the training ahead" not in texts(draw([("r", plan())]).axes[0])
    figure = draw([("r", ahead())])
    curve, tradeoff, step = (texts(axes) for axes in figure.axes)
    assert "critical batch size of the training ahead" in curve
    assert all(word in curve for word in ("loss 0.330", "0.280", "0.200", "B_noise = 100", "planned: B = 64"))
    assert "trained" in tradeoff
    assert "planned: B = 64" in tradeoff
    assert "B_noise = 100" in step
    assert "2026-01-01" in figure.get_suptitle()
    several = draw([("a", ahead()), ("b", ahead())])
    assert "| a | b" in texts(several.axes[0])


def test_trained_batch_sizes_lie_on_the_curve_of_a_law_that_holds() -> None:
    found = ahead()
    rows = {row.batch_size: row for row in found.tradeoff}
    places = {size: (x, y) for size, x, y in trained(found, timed=True)}
    assert {32, 128} <= places.keys()
    for size in places.keys() & rows.keys():
        assert places[size] == pytest.approx((rows[size].examples_ratio, rows[size].relative_time), rel=1e-6)
    assert len(list(trained(found, timed=False))) == 4


def test_any_number_of_alternatives_is_marked() -> None:
    found = ahead()
    assert found.recommendation is not None
    several = dataclasses.replace(found, alternatives=(found.recommendation,) * 5)
    assert texts(draw([("r", several)]).axes[1]).count("B = 24") == 6


def test_a_horizon_without_an_upper_limit_is_drawn(tmp_path: Path) -> None:
    found = ahead()
    assert found.horizon is not None
    first, *others = found.horizon.curve
    opened = dataclasses.replace(first, critical_batch_size=Estimate(value=50.0, low=40.0, high=None))
    unknown = dataclasses.replace(others[-1], critical_batch_size=Estimate(value=None, low=40.0, high=None))
    damaged = dataclasses.replace(found.horizon, curve=(opened, *others[:-1], unknown))
    axes = draw([("r", dataclasses.replace(found, horizon=damaged))]).axes[0]
    assert axes.get_ylim()[1] < 1000
    assert "loss 0.330" in texts(axes)
    assert "0.200" not in texts(axes)
    unknown_only = dataclasses.replace(found.horizon, curve=(unknown,))
    axes = draw([("r", dataclasses.replace(found, horizon=unknown_only))]).axes[0]
    assert "ahead" not in texts(axes)


class Page(HTMLParser):
    """Notes what a page would load and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_html_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page([("<b>&", plan())], path, None)
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(target.startswith("#") for target in page.loads), "only parts of the page itself"
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    pictures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(pictures) == 3
    for picture in pictures:
        ET.fromstring(picture)
        assert 'role="img" aria-label="' in picture
    assert "run time / fastest" in pictures[0], "words are text and not outlines"
    assert text.index("Critical batch size") < text.index("Recommended batch") < text.index("<svg")
    assert text.index("</svg>") < text.index("Trade-off")
    assert "prefers-color-scheme: dark" in text
    write_page([("r", result(points=()))], path, None)
    assert "<svg" not in path.read_text(encoding="utf-8")


def test_the_markdown_page_has_tables_and_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "page.md"
    write_page([("a|b_c", plan())], path, tmp_path / "my plot.png")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# bnoise: a\\|b\\_c\n")
    assert "](<../my plot.png>)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    tables = re.split(r"\n\n", text)
    for table in (block for block in tables if block.startswith("| ")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert len(rows) > 10
    with pytest.raises(CallError, match=r"\.md, \.html"):
        PAGE.require(Path("p.txt"))


def test_the_pictures_of_a_page_follow_the_advice_or_else_the_answer(tmp_path: Path) -> None:
    undecided = dataclasses.replace(ahead(), recommendation=None, alternatives=())
    for found, title in ((ahead(), "Recommended batch"), (undecided, "Critical batch size")):
        write_page([("r", found)], tmp_path / "p.html", None)
        before = (tmp_path / "p.html").read_text(encoding="utf-8").partition("<svg")[0]
        assert re.findall("<h2>(.*?)</h2>", before)[-1] == title


def test_a_page_marks_the_planned_and_the_recommended_row(tmp_path: Path) -> None:
    write_page([("r", ahead())], tmp_path / "p.html", None)
    marked = re.findall(r"<tr class=strong>(.*?)</tr>", (tmp_path / "p.html").read_text())
    assert [("planned" in row, "recommended" in row) for row in marked] == [(False, True), (True, False)]


def test_a_short_range_of_losses_has_plain_ticks() -> None:
    """Between 1.000 and 1.040 matplotlib's own ticks of a log axis are 1.01 × 10⁰ and so on."""
    figure = draw([("b", branches({8: [1.0, 1.0], 32: [1.009, 1.0091], 64: [1.04, 1.04]}))])
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels(which="both")]
    assert [label for label in labels if label] == [f"{value:.10g}" for value in figure.axes[0].get_yticks()]
    assert len(figure.axes[0].get_yticks()) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_result_has_a_report(kind: str) -> None:
    assert report_kind(kind).panels
