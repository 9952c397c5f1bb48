"""A picture of a trial: answers over time, and when there were which faults. Plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from crane.chaos.strike import Strike

_STEP = 0.1
_SVG = "http://www.w3.org/2000/svg"
_WIDTH, _LEFT, _RIGHT = 1200, 150, 20
_PLOT, _TOP, _ROW = 220, 50, 18
_COLOURS = ("#c0392b", "#d68910", "#7d3c98", "#2471a3", "#117864", "#b03a2e", "#5d6d7e")


def picture(
    answers: Sequence[float], strikes: Sequence[Strike], begin: float, end: float, title: str
) -> str:
    """The picture as SVG; all times of one clock, in seconds.

    Answers are counted every 100 ms, and times without any are grey. A fault's
    bar is dark while it lasts and light until the service is at full strength.
    """
    seconds = max(end - begin, _STEP)
    counts = [0] * (int(seconds / _STEP) + 1)
    for one in answers:
        if begin <= one <= end:
            counts[int((one - begin) / _STEP)] += 1
    names = list(dict.fromkeys(one.fault for one in strikes))
    most = max(*counts, 1)
    bottom = _TOP + _PLOT
    height = bottom + 40 + _ROW * len(names) + 20
    scale = (_WIDTH - _LEFT - _RIGHT) / seconds

    def across(time: float) -> float:
        return round(_LEFT + (time - begin) * scale, 1)

    parts = [
        f'<svg xmlns="{_SVG}" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_LEFT, 20, title, size=14),
        _text(_LEFT, 38, "answers in each 100 ms; grey: none"),
        _text(10, _TOP + 10, str(most)),
        _text(10, bottom, "0"),
    ]
    for number, count in enumerate(counts):
        x = round(_LEFT + number * _STEP * scale, 1)
        wide = round(_STEP * scale + 0.2, 2)
        if count:
            high = round(count / most * _PLOT, 1)
            parts.append(_bar(x, bottom - high, wide, high, "#2e86c1"))
        else:
            parts.append(_bar(x, _TOP, wide, _PLOT, "#e5e7e9"))
    parts += [_text(across(begin + at) - 8, bottom + 16, f"{at:g} s") for at in _ticks(seconds)]
    for row, name in enumerate(names):
        y = bottom + 30 + row * _ROW
        colour = _COLOURS[row % len(_COLOURS)]
        parts.append(_text(10, y + 11, name))
        for strike in strikes:
            if strike.fault == name:
                lasted = max(across(strike.healing) - across(strike.begin), 1)
                after = max(across(strike.whole) - across(strike.healing), 1)
                who = f"{name}: replica {strike.victim}{', the leader' if strike.led else ''}"
                parts.append(_bar(across(strike.begin), y, lasted, 13, colour, title=who))
                parts.append(_bar(across(strike.healing), y, after, 13, colour, opacity=0.35))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(seconds: float) -> list[float]:
    step = next((one for one in (1, 2, 5, 10, 30, 60, 300, 600) if seconds / one <= 20), 3600)
    return [float(at) for at in range(0, int(seconds) + 1, step)]


def _text(x: float, y: float, words: str, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(words)}</text>'


def _bar(
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    *,
    opacity: float = 1.0,
    title: str = "",
) -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x}" y="{round(y, 1)}" width="{round(width, 2)}" height="{height}"'
        f' fill="{colour}" fill-opacity="{opacity}">{tip}</rect>'
    )
