#!/usr/bin/env python3
"""Draws what panels of the dashboards showed in a run of the case `watched`, in which a message dies, a disk fills up, nobody consumes a
topic, and two of three nodes are killed, the leader left alone. Needs matplotlib (PyPI, or Debian's python3-matplotlib).

    RAFTQUEUE_PICTURES=/tmp/shown cargo test -p raftqueue-tests --test watched
    deploy/monitoring/pictures/draw.py /tmp/shown deploy/monitoring/pictures

All times of the rules are divided by sixty in that run: a minute of theirs is a second of the pictures.
"""

import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

# Panels by their titles, in the order of the pictures.
CHOSEN = json.loads((Path(__file__).parent / "panels.json").read_text())
COLOURS = ["#5794f2", "#ff9830", "#73bf69", "#f2495c", "#b877d9", "#fade2a", "#8ab8ff", "#ffb357", "#96d98d"]
SERIES_MAX = 9
GROUND, INK, PALE = "#181b1f", "#ccccdc", "#3a3f47"


def named(legend, labels):
    """The legend of a series, as Grafana writes it."""
    text = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend or "")
    return text.strip() or ", ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__")


def shortened(unit):
    """How a value of this unit is written at the axis."""
    scales = {
        "bytes": ([(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")], "B"),
        "Bps": ([(2**20, "MiB/s"), (2**10, "KiB/s")], "B/s"),
        "s": ([(1, "s"), (1e-3, "ms"), (1e-6, "µs")], "s"),
    }
    steps, plain = scales.get(unit, ([(1e6, "M"), (1e3, "k")], {"ops": "/s", "reqps": "/s"}.get(unit, "")))

    def write(value, _):
        if unit == "percentunit":
            return f"{value * 100:g} %"
        for size, word in steps:
            if abs(value) >= size:
                return f"{value / size:.3g} {word}"
        return f"{value:.3g} {plain}".strip()

    return FuncFormatter(write)


def series(panel):
    """Name, moments and values of each series of a panel."""
    for target in panel["targets"]:
        for one in target["history"]:
            points = [(moment, float(value)) for moment, value in one["values"]]
            yield named(target.get("legendFormat"), one["metric"]), points


def draw_lines(axes, panel, begun):
    for number, (name, points) in enumerate(list(series(panel))[:SERIES_MAX]):
        moments = [moment - begun for moment, _ in points]
        # A series that is missing for a while has a gap there.
        line, last = ([], []), None
        for moment, (_, value) in zip(moments, points):
            if last is not None and moment - last > 1:
                line[0].append(moment)
                line[1].append(float("nan"))
            line[0].append(moment)
            line[1].append(value)
            last = moment
        axes.plot(*line, color=COLOURS[number % len(COLOURS)], linewidth=1.3, label=name)
    axes.yaxis.set_major_formatter(shortened(panel["fieldConfig"]["defaults"].get("unit")))
    if panel["fieldConfig"]["defaults"].get("min") == 0:
        # With room for the legend.
        axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.grid(color=PALE, linewidth=0.5)
    axes.legend(fontsize=6, ncols=3, loc="upper left", frameon=False, labelcolor=INK)


def draw_states(axes, panel, begun):
    rows = list(series(panel))[:SERIES_MAX]
    for row, (_, points) in enumerate(rows):
        for moment, value in points:
            colour = "#73bf69" if value > 0 else "#f2495c" if value < 0 else PALE
            axes.barh(row, 0.55, left=moment - begun, height=0.7, color=colour, linewidth=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()


def draw(topic, folder, into):
    dashboard = json.loads((folder / f"{topic}.json").read_text())
    shown = dashboard["shown"]
    panels = {panel["title"]: panel for panel in dashboard["panels"] if panel["type"] != "row"}
    titles = CHOSEN[topic]
    rows = (len(titles) + 1) // 2
    figure, grid = plt.subplots(rows, 2, figsize=(12, 2.5 * rows), squeeze=False, facecolor=GROUND)
    for axes, title in zip(grid.flat, titles):
        panel = panels[title]
        axes.set_facecolor(GROUND)
        (draw_states if panel["type"] == "state-timeline" else draw_lines)(axes, panel, shown["from"])
        axes.set_title(title, fontsize=9, color=INK, loc="left")
        axes.set_xlim(0, shown["to"] - shown["from"])
        axes.tick_params(colors=INK, labelsize=7)
        for side in axes.spines.values():
            side.set_visible(False)
    for axes in grid.flat[len(titles) :]:
        axes.set_visible(False)
    figure.suptitle(f"{dashboard['title']}   (seconds since the run began)", fontsize=11, color=INK, x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(into / f"{topic}.png", dpi=75, facecolor=GROUND)


if len(sys.argv) != 3:
    sys.exit(__doc__)
for about in CHOSEN:
    draw(about, Path(sys.argv[1]), Path(sys.argv[2]))
