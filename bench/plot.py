"""Line charts as SVG, for docs. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 36, 44
COLOURS = ("#b83a10", "#1f6f8b", "#5b8c2a", "#8a5fb0", "#946c00")
Series = Mapping[str, Sequence[tuple[float, float]]]


def chart(title: str, across: str, up: str, series: Series, *, logarithmic: bool = False) -> str:
    """Lines of points, with a name each; `logarithmic` is for what goes up."""
    points = [point for line in series.values() for point in line]
    xs = sorted({x for x, _ in points})
    highest = max(y for _, y in points)
    lowest = min(y for _, y in points) if logarithmic else 0.0
    ticks = _powers(lowest, highest) if logarithmic else _steps(highest)

    def at(x: float, y: float) -> tuple[float, float]:
        """Equal distances between the measured values of x, which double."""
        share = xs.index(x) / max(1, len(xs) - 1)
        span = (
            (_log(y) - _log(ticks[0])) / (_log(ticks[-1]) - _log(ticks[0])) if logarithmic else y / ticks[-1]
        )
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - span * (HEIGHT - TOP - BOTTOM)

    parts = _grid(title, across, up, ticks, LEFT, lambda tick: at(xs[0], tick)[1])
    for x_value in xs:
        x, y = at(x_value, ticks[0])
        parts.append(_text(x, y + 18, f"{x_value:g}", anchor="middle"))
    names = _apart({name: at(*line[-1])[1] for name, line in series.items()})
    for (name, line), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(_text(at(*line[-1])[0] + 8, names[name] + 4, name, colour=colour))
    return _svg(parts)


def timeline(title: str, across: str, up: str, series: Series, *, logarithmic: bool = False) -> str:
    """Lines over time, many points each; `logarithmic` is for what goes up."""
    points = [point for line in series.values() for point in line]
    begin, end = min(x for x, _ in points), max(x for x, _ in points)
    ys = [y for _, y in points]
    ticks = _powers(min(ys), max(ys)) if logarithmic else _steps(max(ys))
    scale = _log if logarithmic else float

    def at(x: float, y: float) -> tuple[float, float]:
        share = (x - begin) / (end - begin)
        height = (scale(y) - scale(ticks[0])) / (scale(ticks[-1]) - scale(ticks[0]))
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)

    parts = _grid(title, across, up, ticks, at(begin, ticks[0])[0], lambda tick: at(begin, tick)[1])
    parts += [
        _text(at(hour, ticks[0])[0], HEIGHT - BOTTOM + 18, f"{hour:g}", anchor="middle")
        for hour in _steps(end)
        if begin <= hour <= end
    ]
    names = _apart({name: at(*line[-1])[1] for name, line in series.items()})
    for (name, line), colour in zip(series.items(), COLOURS, strict=False):
        path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_text(WIDTH - RIGHT + 8, names[name] + 4, name, colour=colour))
    return _svg(parts)


def _grid(
    title: str, across: str, up: str, ticks: Sequence[float], x: float, y_of: Callable[[float], float]
) -> list[str]:
    parts = [_text(LEFT, TOP - 18, title, size=15, weight="600"), _text(LEFT, TOP - 4, up)]
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#8884"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, anchor="middle"))
    return parts


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """The same, moved down where two would lie on each other."""
    placed: dict[str, float] = {}
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max([height, *(other + 15 for other in placed.values())])
    return placed


def _svg(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join((head, *parts, "</svg>\n"))


def _text(  # noqa: PLR0913 - attributes
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#777",
    size: int = 12,
    weight: str = "400",
) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{text}</text>'


def _log(value: float) -> float:
    return math.log10(max(value, 1e-9))


def _powers(lowest: float, highest: float) -> list[float]:
    first, last = math.floor(_log(lowest)), math.ceil(_log(highest))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _steps(highest: float) -> list[float]:
    """Round numbers from 0 to at least the highest."""
    rough = highest / 5
    power = 10.0 ** math.floor(_log(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * number for number in range(math.ceil(highest / step) + 1)]
