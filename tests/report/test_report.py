"""What is printed, drawn and written from results."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnoise_cli.errors import CallError, RunError
from bnoise_cli.measurement.outcome import DryRun
from bnoise_cli.records import CriticalBatchSize, Estimate, NoiseScale, TrajectoryPoint
from bnoise_cli.report.chart import improvement_chart
from bnoise_cli.report.export.page import require_page_format, write_page
from bnoise_cli.report.plots.draw import draw, plot_results, require_plot_format
from bnoise_cli.report.sections import report_sections
from bnoise_cli.report.terminal import layout, render
from bnoise_cli.report.words.dry_run import dry_run_sections
from bnoise_cli.results.probe import ProbeResult
from tests.samples import GOOD, OPEN, plan, result, together


def shown(
    *results: ProbeResult, width: int = 100, color: bool = False, encoding: str = "utf-8", chart: bool = False
) -> str:
    named = [(f"r{i}", one) for i, one in enumerate(results)]
    sections = report_sections(named, drawing_width=width if chart else None)
    return render(layout(sections, width), width=width, color=color, encoding=encoding)


GOLDEN = """\
Critical batch size  100 examples (95% interval 90.0 to 112)
  Training at this batch size takes twice the fewest steps and twice the fewest examples.
  The planned batch of 64 takes 2.56 times the fewest steps and 1.64 times the fewest examples.
  At step 100 of training; it changes along the way, as probe.at_steps shows.
  Simple noise scale tr(Σ)/|G|²: 250 examples (95% interval 200 to 310)

Recommended batch  64 examples, micro-batch 32 × 2 devices, learning rate 0.2
  Steps × step time is least here: on 2 devices a step takes 3.00 ms + 100 µs per example of each,
  and sqrt(B_crit·K·t₀/t₁) = 77.5 examples.
  Fastest: 6.2 s at a price of 0.0103, 1.00 times the fastest time, 1.64 times the fewest examples.
  It is the planned batch.
  Cheapest: 48, micro-batch 48 × 1 device, learning rate 0.166; 9.4 s at a price of 0.00782, 1.51
  times the fastest time, 1.48 times the fewest examples.
  Balanced: 96, micro-batch 48 × 2 devices, learning rate 0.251; 6.2 s at a price of 0.0104, 1.00
  times the fastest time, 1.96 times the fewest examples.
  Learning rate: from the planned 0.2 at 64, proportional to 1/(1 + B_crit/B) (arXiv:1812.06162 eq.
  2.6): a starting point, re-tune it.
  Step time t₀ + t₁·B: 3.00 ms + 100 µs per example, within 0.0% of what was measured. Largest
  micro-batch 16,384: more has no use here.

batch      steps   examples     step       time     cost    run     run
 size   / fewest   / fewest     time  / fastest  / least   time   price
   16  6.62–8.00  1.14–1.18  3.80 ms  1.69–1.80     2.29   11 s  0.0179
   24  4.75–5.67  1.21–1.27  4.20 ms  1.34–1.41     1.80  8.5 s  0.0141
   32  3.81–4.50  1.29–1.36  4.60 ms  1.18–1.22     1.58  7.4 s  0.0123
   48  2.88–3.33  1.43–1.53  5.40 ms  1.04–1.07     1.38  6.5 s  0.0108
   64  2.41–2.75  1.57–1.71  6.20 ms  1.00–1.01     1.32  6.2 s  0.0103  planned, fastest
   96  1.94–2.17  1.86–2.07  7.80 ms  1.00–1.01     1.32  6.2 s  0.0104  balanced
  128  1.70–1.88  2.14–2.42  9.40 ms  1.04–1.07     1.39  6.5 s  0.0109
  192  1.47–1.58  2.71–3.13  12.6 ms  1.18–1.24     1.59  7.5 s  0.0125
  256  1.35–1.44  3.29–3.84  15.8 ms  1.34–1.43     1.83  8.6 s  0.0143
  384  1.23–1.29  4.43–5.27  22.2 ms  1.70–1.84     2.33   11 s  0.0182
  Ranges: over the interval of the critical batch size.

batch          best step                best  gradient
 size              gains      law  step size     error
    8  0.00148 ± 7.4e-05  0.00149     0.0222      559%
   32  0.00485 ± 0.00024  0.00487     0.0727      280%
  128   0.0112 ± 0.00056   0.0113      0.168      140%
  512   0.0167 ± 0.00084   0.0168      0.251       70%

Reasons for doubt
  momentum: measured without it.
    Nothing to do.
  communication: times for 2 devices are one device's: the exchange of gradients was not measured.
    Probe under torchrun on the planned devices, or take the times as lower bounds: a step that
    waits longer asks for a larger batch.

Cost  3.2 s and 33 s of timing steps, after 500 ms of warm-up; 20,000 gradient and 60,000 evaluation
examples in 40 replicates on cpu; dataset of 50,000.
"""


def test_the_whole_report() -> None:
    text = shown(plan(batch_size=64, world_size=2, steps=1000, price_per_device_hour=3.0))
    assert text.splitlines() == GOLDEN.splitlines()
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_report_says_where_steps_were_timed_and_what_they_wait_for() -> None:
    """At 96 examples on each a step takes 5 ms + 9.6 ms, and 2 ms of it is the exchange; FSDP's is all along it."""
    critical = Estimate(value=1000.0, low=900.0, high=1100.0)
    planned = plan(critical, world_size=4)
    ddp = together(planned, 4, exchange=2e-3)
    assert ddp.recommendation is not None
    assert (ddp.recommendation.world_size, ddp.recommendation.micro_batch_size) == (4, 96)
    assert (
        "Step time t₀ + t₁·B on 4 devices under DDP: 5.00 ms + 100 µs per example of each, within 0.0% of what was "
        "measured. The recommended step waits 2.00 ms (14%) for the exchange of gradients. Largest micro-batch"
    ) in " ".join(shown(ddp, width=80).split())
    fsdp = " ".join(shown(together(planned, 4, exchange=2e-3, parallel="fsdp")).split())
    assert "on 4 devices under FSDP: 5.00 ms + 100 µs per example of each" in fsdp
    assert "what was measured; the exchange of weights and gradients is in it. Largest" in fsdp
    alone = " ".join(shown(together(plan(critical), 4, exchange=2e-3)).split())
    assert "on one device a step takes 3.00 ms + 100 µs per example," in alone
    assert "recommended step waits" not in alone


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


def test_an_open_interval_is_no_number() -> None:
    unknown = result(
        noise_scale=NoiseScale(value=None, low=40.0, high=None),
        critical_batch_size=CriticalBatchSize(value=None, low=40.0, high=None, basis="probe"),
        tradeoff=(),
    )
    text = shown(unknown)
    assert text.startswith("Critical batch size  cannot tell (at least 40.0 examples, no upper bound)\n")
    assert "planned batch" not in text
    assert not unknown.resolved
    wide = CriticalBatchSize(value=100.0, low=30.0, high=310.0, basis="probe")
    assert not result(critical_batch_size=wide).resolved
    assert result().resolved


def test_exact_answers_and_trajectories_are_shown() -> None:
    along = result(
        noise_scale=NoiseScale(value=100.0, low=90.0, high=112.0, exact=104.0),
        critical_batch_size=CriticalBatchSize(value=60.0, low=50.0, high=70.0, basis="trajectory"),
        trajectory=(
            TrajectoryPoint(step=0, loss=2.3, noise_scale=OPEN, simple_noise_scale=GOOD),
            TrajectoryPoint(step=50, loss=1.5, noise_scale=GOOD, simple_noise_scale=GOOD),
        ),
    )
    text = shown(along)
    assert "Exact noise scale of this task: 104; measured 100" in text
    assert "From several points of training" in text
    assert "cannot tell (at least 40.0 examples" in text


def test_the_dry_run_names_time_and_memory() -> None:
    dry = DryRun(
        device="cpu", parameters=9610, dataset_length=1797, micro_batch_size=64, steps=(0, 100),
        seconds_per_example=1e-5, warmup_seconds=0.06, budget_seconds=60.0, extra_bytes=115_320, peak_bytes=None,
    )  # fmt: skip
    text = render(layout(dry_run_sections(dry), 100), width=100, color=False, encoding="utf-8")
    for word in ("9,610", "1,797 examples", "0, 100", "at most about 60 s", "113 KiB"):
        assert word in text


def test_pictures_are_drawn_in_every_format(tmp_path: Path) -> None:
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plot_results([("r", plan(world_size=2))], tmp_path / f"p{ending}")
        assert (tmp_path / f"p{ending}").read_bytes().startswith(start)
    with pytest.raises(CallError, match=r"\.png, \.svg, \.pdf"):
        require_plot_format(Path("p.jpg"))
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
    assert "Comparison" not in text
    assert re.search(r"r0 .*100 .*90\.0–112", text)
    assert re.search(r"r1 .*\? .*at least 300", text)
    figure = draw([("small", plan()), ("large", plan())])
    names = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
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
    ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert "Critical batch size" in text
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
        require_page_format(Path("p.txt"))
