"""The report's charts: Vega-Lite specifications by Altair, drawn by vl-convert without a browser or a network.

Each chart shows one text on one machine in one precision, frameworks in alphabetical order. `said` are the words of a
language, the table `report` of site/words. Drawn twice: as SVG that takes its ink from the page around it, so that it
follows a dark or a light one and print, and as PNG on white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Row = dict[str, Any]
Said = Mapping[str, str]

WIDTH = 560  # pixels of the plot; labels come beside it
ROW = 24  # pixels of a bar and its gap
# Blue and orange are told apart by all common kinds of colour vision, and stand out on white and on black.
TRACKS = {"default": "#3b82d0", "tuned": "#e0812b"}
PHASES = {"compile": "#e0812b", "step": "#3b82d0"}
SHAPES = {"compile": "circle", "step": "square"}
SCHEMES: Any = ("tableau10", "tableau20")  # the second where there are more than ten
GAP = 15  # pixels between two labels
LETTER = 6.6  # pixels that a letter takes, about
NUMBERS = ",~r"  # without exponents


def svg(spec: Spec) -> str:
    """The chart as an SVG element in the colour of the text around it."""
    import vl_convert

    return vl_convert.vegalite_to_svg({**spec, "config": _config("currentColor", None)})


def png(spec: Spec) -> bytes:
    """The chart as a PNG on white, two pixels to each of the page's."""
    import vl_convert

    return vl_convert.vegalite_to_png({**spec, "config": _config("#222222", "#ffffff")}, scale=2)


def _config(ink: str, background: str | None) -> Spec:
    return {
        "background": background,
        # Room beside the plot, for a reader's font may be a fifth wider than the one that labels are measured with.
        "padding": {"left": 24, "right": 40, "top": 6, "bottom": 6},
        "font": "Helvetica, Arial, sans-serif",
        "view": {"stroke": None},
        "axis": {
            **{f"{part}Color": ink for part in ("label", "title", "grid", "domain", "tick")},
            "gridOpacity": 0.15,
            "domainOpacity": 0.5,
            "tickOpacity": 0.5,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelLimit": 260,
        },
        "axisY": {"ticks": False, "domain": False, "titlePadding": 14},
        "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "orient": "top", "title": None},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
        "tick": {"color": ink},
    }


def speed(rows: Sequence[Row], unit: str, said: Said) -> Spec:
    """Median speed as a bar, its 95 % interval as a line. Rows: label, track, speed, low, high, shown."""
    import altair as alt

    base = _base(rows)
    bar = base.mark_bar(height=13, opacity=0.85).encode(
        x=_quantity("speed", said["speed_axis"].format(unit=unit), _most(rows, "high")),
        color=_colour("track", TRACKS, rows, said),
    )
    interval = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    ends = [base.mark_tick(thickness=2, size=9).encode(x=f"{end}:Q") for end in ("low", "high")]
    return _drawn(alt.layer(bar, interval, *ends, _shown(base, "high")), rows)


def compiling(rows: Sequence[Row], said: Said) -> Spec:
    """First call less a steady step, beside a steady step, in seconds on a log scale. Rows: label, compile (None where
    the first call took no longer), step, shown.
    """
    import altair as alt

    ends = [
        {"label": row["label"], "phase": phase, "seconds": row[key]}
        for row in rows
        for phase, key in ((said["compile"], "compile"), (said["step"], "step"))
        if row[key]
    ]
    values = [end["seconds"] for end in ends]
    seconds = alt.Scale(type="log", domain=[min(values) / 1.5, max(values) * 12], nice=False)
    axis = alt.Axis(format=NUMBERS, values=_ticks(values))
    x = alt.X("seconds:Q", scale=seconds, title=said["seconds_axis"], axis=axis)
    both = [row for row in rows if row["compile"]]
    line = alt.Chart(_data(both)).mark_rule(opacity=0.4).encode(y=_labels(), x="step:Q", x2="compile:Q")
    points = _base(ends).mark_point(filled=True, size=80, opacity=1)
    colour = _colour("phase", PHASES, ends, said)
    marks = _there("phase", SHAPES, ends, said)
    scale = alt.Scale(domain=list(marks), range=list(marks.values()))
    legend = alt.Legend() if len(marks) > 1 else None  # one with that of the colours
    shape = alt.Shape("phase:N", scale=scale, legend=legend)
    points = points.encode(x=x, color=colour, shape=shape)
    for row in rows:
        row["right"] = max(row["compile"] or 0.0, row["step"])
    return _drawn(alt.layer(line, points, _shown(_base(rows), "right")), rows)


def memory(rows: Sequence[Row], said: Said) -> Spec:
    """Largest memory of the process. Rows: label, track, memory (GiB), shown."""
    import altair as alt

    base = _base(rows)
    bar = base.mark_bar(height=13, opacity=0.85).encode(
        x=_quantity("memory", said["memory_axis"], _most(rows, "memory")),
        color=_colour("track", TRACKS, rows, said),
    )
    return _drawn(alt.layer(bar, _shown(base, "memory")), rows)


def losses(lines: Sequence[Row], said: Said) -> Spec:
    """Loss at the end of each epoch, a line a cell. Rows: label, framework, track, losses (None where it was none)."""
    import altair as alt

    points: list[Row] = [
        {**{key: line[key] for key in ("label", "framework", "track")}, "epoch": epoch, "loss": loss}
        for line in lines
        for epoch, loss in enumerate(line["losses"], 1)
        if loss is not None
    ]
    last = list({point["label"]: point for point in points}.values())
    epochs, most = max(point["epoch"] for point in points), max(point["loss"] for point in points) or 1.0
    height = max(260, GAP * (len(last) + 1))
    places = spread([point["loss"] / most for point in last], GAP / height)
    ends = [{**point, "epoch": epochs, "at": place * most} for point, place in zip(last, places, strict=True)]
    frameworks = sorted({line["framework"] for line in lines})
    colour = alt.Color(
        "framework:N", scale=alt.Scale(scheme=SCHEMES[len(frameworks) > 10], domain=frameworks), legend=None
    )
    dash = alt.StrokeDash("track:N", scale=alt.Scale(domain=list(TRACKS), range=[[1, 0], [5, 3]]), legend=None)
    axis = alt.Axis(values=list(range(1, epochs + 1)), format="d", grid=False)
    x = alt.X("epoch:Q", title=said["epoch"], axis=axis, scale=alt.Scale(domain=[1, max(2, epochs)], nice=False))
    y = alt.Y("loss:Q", title=said["loss"], scale=alt.Scale(domain=[0, most], nice=False))
    chart = alt.Chart(_data(points)).encode(x=x, y=y, color=colour, detail="label:N")
    names = alt.Chart(_data(ends)).mark_text(align="left", dx=8).encode(x=x, y="at:Q", text="label:N", color=colour)
    drawn = alt.layer(
        chart.mark_line(strokeWidth=2).encode(strokeDash=dash),
        chart.mark_point(filled=True, size=30, opacity=1),
        names,
    )
    return drawn.properties(width=WIDTH - 120, height=height).to_dict()


def accuracy(rows: Sequence[Row], metric: str, said: Said) -> Spec:
    """What training reached, and how long it took. Rows: label, track, minutes, accuracy, shown."""
    import altair as alt

    height, values = max(220, 12 * len(rows)), [row["accuracy"] for row in rows]
    margin = max(max(values) - min(values), 0.02 * max(map(abs, values)), 1e-6) / 3
    low, high, longest = min(values) - margin, max(values) + margin, _most(rows, "minutes") * 1.3
    marks = [
        (WIDTH * row["minutes"] / longest, height * (high - row["accuracy"]) / (high - low), row["shown"])
        for row in rows
    ]
    placed = [
        {**row, "at_x": x / WIDTH * longest, "at_y": high - y / height * (high - low)}
        for row, (x, y) in zip(rows, beside(marks, WIDTH, height), strict=True)
    ]
    x = _quantity("minutes", said["minutes_axis"], longest / 1.3)
    y = alt.Y(
        "accuracy:Q", title=said["metric_axis"].format(metric=metric), scale=alt.Scale(domain=[low, high], nice=False)
    )
    base = alt.Chart(_data(placed))
    points = base.mark_point(filled=True, size=80, opacity=1)
    points = points.encode(x=x, y=y, color=_colour("track", TRACKS, rows, said))
    names = base.mark_text(align="left").encode(x="at_x:Q", y="at_y:Q", text="shown:N")
    return alt.layer(points, names).properties(width=WIDTH, height=height).to_dict()


def roofline(rows: Sequence[Row], intensity: float, flops_per_s: float, bytes_per_s: float, said: Said) -> Spec:
    """Each cell below the roof of its machine (Williams, Waterman, Patterson 2009), log scales. Rows: label, track,
    flops_per_s, shown. `intensity` is the text's, in FLOP a byte.
    """
    import altair as alt

    giga, height, ridge = 1e9, max(300, GAP * (len(rows) + 1)), flops_per_s / bytes_per_s
    left, right = min(intensity, ridge) / 6, max(intensity, ridge) * 6
    speeds = [row["flops_per_s"] / giga for row in rows]
    floor, top = min([*speeds, left * bytes_per_s / giga]) / 2, 2 * max([*speeds, flops_per_s / giga])
    tall = math.log(top / floor)
    places = spread([math.log(value / floor) / tall for value in speeds], GAP / height)
    placed = [
        {**row, "x": intensity, "edge": right, "y": value, "at": floor * math.exp(place * tall)}
        for row, value, place in zip(rows, speeds, places, strict=True)
    ]
    roof = [
        {"x": x, "y": min(flops_per_s, x * bytes_per_s) / giga}
        for x in sorted({left, min(max(ridge, left), right), right})
    ]

    def log(low: float, high: float) -> dict[str, Any]:
        axis = alt.Axis(values=_ticks([low, high]), format=NUMBERS)
        return {"scale": alt.Scale(type="log", domain=[low, high], nice=False), "axis": axis}

    x = alt.X("x:Q", title=said["intensity_axis"], **log(left, right))
    y = alt.Y("y:Q", title="GFLOP/s", **log(floor, top))
    line = alt.Chart(_data(roof)).mark_line(strokeWidth=2, color="#888888").encode(x=x, y=y)
    base = alt.Chart(_data(placed))
    joined = base.mark_rule(opacity=0.25).encode(x="x:Q", y="y:Q", x2="edge:Q", y2="at:Q")
    points = base.mark_point(filled=True, size=70, opacity=1)
    points = points.encode(x="x:Q", y="y:Q", color=_colour("track", TRACKS, rows, said))
    names = base.mark_text(align="left", dx=6).encode(x="edge:Q", y="at:Q", text="shown:N")
    return alt.layer(line, joined, points, names).properties(width=WIDTH - 200, height=height).to_dict()


# -- where labels go ---------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places for labels at `values`, within 0 and 1 where they fit, in the same order: none nearer to another than
    `gap`. Those that are too near are moved together, so that the middle of each heap stays where it was.
    """
    order = sorted(range(len(values)), key=lambda number: values[number])
    heaps: list[tuple[list[int], float]] = []  # of labels, and where the lowest of them is

    def start(some: list[int]) -> float:
        middle = sum(values[number] for number in some) / len(some)
        tall = gap * (len(some) - 1)
        return max(0.0, min(middle - tall / 2, 1.0 - tall))

    for number in order:
        heaps.append(([number], start([number])))
        while len(heaps) > 1 and heaps[-2][1] + gap * len(heaps[-2][0]) > heaps[-1][1]:
            some = heaps[-2][0] + heaps[-1][0]
            heaps[-2:] = [(some, start(some))]
    places = [0.0] * len(values)
    for some, low in heaps:
        for position, number in enumerate(some):
            places[number] = low + gap * position
    return places


def beside(marks: Sequence[tuple[float, float, str]], width: float, height: float) -> list[tuple[float, float]]:
    """Left ends, in pixels, of labels beside points (x, y, text): for each in turn the place that covers least."""
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in marks]
    places = []
    for x, y, text in marks:
        long = LETTER * len(text)
        best = None
        for up in (0, -14, 14, -28, 28, -42, 42):
            for left in (x + 9, x - 9 - long, x - long / 2) if up else (x + 9, x - 9 - long):
                box = (left, y + up - 7, left + long, y + up + 7)
                covered = sum(_shared(box, other) for other in boxes)
                out = max(0.0, -box[0]) + max(0.0, box[2] - width) + max(0.0, -box[1]) + max(0.0, box[3] - height)
                cost = covered + 20 * out + abs(up) / 10
                if best is None or cost < best[0]:
                    best = (cost, box)
        assert best is not None
        boxes.append(best[1])
        places.append((best[1][0], best[1][1] + 7))
    return places


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The area that two boxes (left, top, right, bottom) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


# -- parts -------------------------------------------------------------------------------------------------------------


def _data(rows: Sequence[Row]) -> Any:
    import altair as alt

    return alt.Data(values=[dict(row) for row in rows])


def _labels() -> Any:
    import altair as alt

    return alt.Y("label:N", title=None, sort="ascending")


def _base(rows: Sequence[Row]) -> Any:
    import altair as alt

    return alt.Chart(_data(rows)).encode(y=_labels())


def _shown(base: Any, right: str) -> Any:
    """The figures themselves, right of what is drawn up to the field `right`."""
    return base.mark_text(align="left", dx=8).encode(x=f"{right}:Q", text="shown:N")


def _quantity(field: str, title: str, most: float) -> Any:
    """An axis from zero, with room for figures on the right."""
    import altair as alt

    scale = alt.Scale(domain=[0, most * 1.3 or 1.0], nice=False)
    return alt.X(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6, format=NUMBERS))


def _colour(field: str, colours: dict[str, str], rows: Sequence[Row], said: Said) -> Any:
    """A colour for each value, which rows have in the words of the language; a legend where there are two."""
    import altair as alt

    there = _there(field, colours, rows, said)
    scale = alt.Scale(domain=list(there), range=list(there.values()))
    legend = alt.Legend() if len(there) > 1 else None
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def _there(field: str, looks: dict[str, str], rows: Sequence[Row], said: Said) -> dict[str, str]:
    """How the values of a field look, by their words, of those that any row has."""
    return {said[key]: look for key, look in looks.items() if any(row[field] == said[key] for row in rows)}


def _ticks(values: Sequence[float]) -> list[float]:
    """Of a logarithmic axis: powers of ten; where these are few, twice and five times as much too."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if math.log10(max(values) / min(values)) < 2 else (1,)
    return [step * 10.0**power for power in range(low, high + 1) for step in steps]


def _most(rows: Sequence[Row], field: str) -> float:
    return max(row[field] for row in rows)


def _drawn(chart: Any, rows: Sequence[Row]) -> Spec:
    return chart.properties(width=WIDTH, height=ROW * len({row["label"] for row in rows})).to_dict()
