"""The picture of a text's model: layers and operations with their shapes and numbers of parameters, as SVG.

It is drawn from what the reference does (`trace`), so it is the same for all versions. Blocks that repeat are one box
with their number, and one of them is drawn below in full. 360 units wide, it is readable on a phone; ink is
`currentColor`, so it follows a dark page and a light one; there are no scripts and no styles, only attributes, which
any policy allows. A box of a layer has its concept in `data-concept` ("layer:conv1"; see `lines`), and is a link where
`link` knows an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING

from dlrosetta.site import trace
from dlrosetta.site.folding import Part, blocks_of, branches_of, by_number, families, parts_of, ways
from dlrosetta.site.trace import Step
from dlrosetta.site.vocabulary import label

if TYPE_CHECKING:
    from dlrosetta.texts import Text

WIDTH = 360
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
SANS = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, Noto Sans CJK SC, DejaVu Sans, sans-serif"
# Heights: of a layer's box, of one with two lines, of an operation's; of lines between them, with a shape beside them.
LAYER, TALL, OPERATION, GAP, LABELLED = 27, 40, 22, 12, 22
NARROW = 280  # of a box, below which it has two lines
STACK = 3  # how far apart the edges of folded blocks are
BOLD, ITALIC, FAINT = ' font-weight="600"', ' font-style="italic"', ' opacity="0.8"'
MIDDLE, END = ' text-anchor="middle"', ' text-anchor="end"'
WORDS = {
    "en": {
        "parameters": "{} parameters", "blocks": "{} blocks, as below", "block": "a block, as below",
        "one": "{name}, one of {count} blocks", "some": "in {some} of {count}", "all": "{} parameters in all",
        "logits": "logits", "features": "features", "images": "image", "tokens": "tokens",
        "title": "The model of {}", "output": "output {}",
    },
    "zh": {
        "parameters": "{} 个参数", "blocks": "{} 个模块，见下", "block": "1 个模块，见下",
        "one": "{name}：{count} 个模块之一", "some": "{count} 个模块中的 {some} 个", "all": "共 {} 个参数",
        "logits": "logits", "features": "特征", "images": "图像", "tokens": "词元",
        "title": "{} 的模型", "output": "输出 {}",
    },
}  # fmt: skip
Link = Callable[[str], str | None]


def svg(text: Text, language: str = "en", link: Link = lambda concept: None) -> str:
    """An `<svg>` element. `link` gives the address of a concept, or None."""
    steps = trace.steps(text)
    blocks = blocks_of(steps)
    words = WORDS[language]
    drawing = _Drawing(language, link)
    parts = parts_of(steps, blocks)
    drawing.model(parts, words[text.input], _input(text), words["logits" if text.trains else "features"])
    for block, count, having in families(steps, blocks).values():
        drawing.panel(block, count, having, steps)
    total = f"{sum(step.parameters for step in steps):,}"
    return drawing.document(
        words["title"].format(text.title), _description(parts, language), words["all"].format(total)
    )


def _input(text: Text) -> tuple[int, ...]:
    from dlrosetta.texts import sized

    return tuple(sized(text.inputs[text.input]["shape"], text.hyperparameters))


# -- words -------------------------------------------------------------------------------------------------------------


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(str(size) for size in shape)


def _said(step: Step, language: str) -> str:
    """An operation in words: "Convolution 3×3 / 2", "Attention · HEADS = 4"."""
    between = " · " if step.detail[:1].isalpha() else " "
    return f"{label(step.concept, language)}{between}{step.detail}".rstrip()


def _subtitle(part: Part, language: str) -> str:
    words = WORDS[language]
    if part.group:
        return words["blocks"].format(part.blocks) if part.blocks > 1 else words["block"]
    return _said(part.steps[0], language)


def _description(parts: list[Part], language: str) -> str:
    """The picture for who does not see it."""
    words, said = WORDS[language], []
    for part in parts:
        name = part.group or part.steps[0].layer
        entry = f"{name}: {_subtitle(part, language)}" if name else _subtitle(part, language)
        entry += f", {words['output'].format(_shape(part.steps[-1].shape))}"
        said.append(entry + (f", {words['parameters'].format(f'{part.parameters:,}')}" if part.parameters else ""))
    return "; ".join(said)


# -- drawing -----------------------------------------------------------------------------------------------------------


class _Drawing:
    """Elements from top to bottom; `y` is how far down it is."""

    def __init__(self, language: str, link: Link):
        self.language, self.link = language, link
        self.words = WORDS[language]
        self.elements: list[str] = []
        self.linked = False
        self.y = 8.0

    def model(self, parts: list[Part], given: str, shape: tuple[int, ...], result: str) -> None:
        """The whole model, between the names of what it takes and gives."""
        middle = self.sides(parts)[2]
        self.words_at(middle, self.y + 12, f"{given}  {_shape(shape)}", 12, more=MIDDLE + ITALIC)
        self.y += 18
        middle = self.column(parts, shape, -1)
        self.arrow(middle, self.y - LABELLED, self.y)
        self.words_at(middle, self.y + 13, result, 12, more=MIDDLE + ITALIC)
        self.y += 20

    def panel(self, block: list[Part], count: int, having: dict[str, int], steps: list[Step]) -> None:
        """One block in full, in a frame; `having` are the layers that some of `count` blocks have."""
        self.y += 14
        top = self.y
        title = self.words["one"].format(name=block[0].steps[0].block, count=count)
        self.words_at(20, self.y + 20, title, 12, more=BOLD)
        self.y += 26
        before = min(source for part in block for source in part.inputs())
        self.column(block, steps[before].shape, before)
        some = {leaf: number for leaf, number in having.items() if number < count}
        if some:
            where = self.words["some"].format(some=next(iter(some.values())), count=count)
            self.words_at(20, self.y + 12, f"{', '.join(sorted(some))}: {where}", 11, more=FAINT)
            self.y += 18
        self.y += 4
        frame = f'<rect x="8" y="{top:g}" width="{WIDTH - 16}" height="{self.y - top:g}" rx="8" fill="none"'
        self.elements.append(f'{frame} stroke="currentColor" stroke-opacity="0.45" stroke-dasharray="4 4"/>')

    def sides(self, parts: list[Part]) -> tuple[float, float, float]:
        """Left edge of a column's boxes, the place of lines around them, and the middle."""
        branches = branches_of(parts)
        left = 158.0 if any(branches.values()) else 44.0 if branches else 20.0
        return left, 85.0 if any(branches.values()) else 27.0, (left + WIDTH - 20) / 2

    def column(self, parts: list[Part], shape: tuple[int, ...], start: int) -> float:
        """Parts below one another, lines between and around them, and shapes where they change. Returns where the last
        line, which ends with its shape, stands.
        """
        branches = branches_of(parts)
        left, lane, middle = self.sides(parts)
        beside = [part for branch in branches.values() for part in branch]
        outs = {start: self.y + GAP / 2}  # by number of a step: how far down a line around others leaves its own
        shown: tuple[int, ...] | None = None if start >= 0 else shape
        for part in parts:
            if part in beside:
                continue
            number, join = part.numbers[-1], part.numbers[-1] in branches
            height = (GAP if shape == shown else LABELLED) + (2 * STACK if part.blocks > 1 else 0)
            if shape != shown:
                self.words_at(middle + 8, self.y + 13, _shape(shape), 11, more=FAINT)
            outs[start] = self.y + height - 7
            self.y += height
            if join:
                branch = branches[number]
                other = branch[0].steps[0].sources if branch else [ways(number, by_number(parts))[1]]
                self.around(outs[other[0]] if other else None, lane, middle, left, branch)
                if branch:  # from here on there is nothing beside the path
                    self.arrow(middle, self.y - height, self.y)
                    left, middle, height = 20.0, WIDTH / 2, 0
            if height:
                self.arrow(middle, self.y - height, self.y)
            self.part(part, left, WIDTH - 20)
            start, shown, shape = number, shape, part.steps[-1].shape
        self.line(f"M{middle:g} {self.y:g}v{LABELLED}")
        self.words_at(middle + 8, self.y + 14, _shape(shape), 11, more=FAINT)
        self.y += LABELLED
        return middle

    def around(self, start: float | None, lane: float, middle: float, left: float, branch: list[Part]) -> None:
        """A line from `start` around what lies between into the sum that comes next, through the layers on it. Without
        a start it begins with them.
        """
        end = self.y + (0 if branch else OPERATION / 2)
        top = end - 12 if start is None else start
        boxes = len(branch) * TALL + (len(branch) - 1) * GAP if branch else 0
        first = end - GAP - boxes if start is None else (top + end - boxes) / 2  # where the layers begin
        bend = "" if start is None else f"M{middle:g} {top:g}H{lane + 8:g}q-8 0 -8 8"
        if not branch:
            self.line(f"{bend}V{end - 8:g}q0 8 8 8H{left:g}")
            self.head(left, end, "right")
            return
        if bend:
            self.arrow(lane, first - 1, first)
            self.line(f"{bend}V{first:g}")
        y, self.y = self.y, first
        for part in branch:
            self.part(part, 20, 2 * lane - 20)
            self.arrow(lane, self.y, end if part is branch[-1] else self.y + GAP)
            self.y += GAP
        self.y = y

    def part(self, part: Part, left: float, right: float) -> None:
        """One box: of a layer or group with name, kind and parameters; of an operation its name alone."""
        step, name = part.steps[0], part.group or part.steps[0].layer.rpartition(".")[2]
        self.elements.append(f'<g class="picture-part" data-concept="{escape(part.concept)}">')
        address = self.link(part.concept)
        if address:
            self.linked = True
            said = f"{part.group or step.layer} {_subtitle(part, self.language)}".strip()
            self.elements.append(f'<a href="{escape(address)}" aria-label="{escape(said)}">')
        if name:
            self.layer(part, name, left, right)
        else:
            self.box(left, right, OPERATION, 11, 0)
            said = _said(step, self.language)
            self.words_at((left + right) / 2, self.y + 15, said, 11, more=MIDDLE)
            self.y += OPERATION
        self.elements.append("</a></g>" if address else "</g>")

    def layer(self, part: Part, name: str, left: float, right: float) -> None:
        count = f"{part.parameters:,}" if part.parameters else ""
        kind, narrow = _subtitle(part, self.language), right - left < 150
        height = LAYER if right - left >= NARROW else TALL
        if part.blocks > 1:
            right -= 2 * STACK
            for by in (2 * STACK, STACK):
                top = f"M{left + by:g} {self.y - by + STACK:g}v-1q0 -2 2 -2H{right + by - 5:g}q5 0 5 5"
                self.line(f"{top}V{self.y + height - by:g}q0 2 -2 2h-1")
        self.box(left, right, height, 5, 0.07)
        size, left, right = (10, left + 6, right - 6) if narrow else (13, left + 9, right - 8)
        self.words_at(left, self.y + 18, name, size, MONO, BOLD)
        end = left + 0.62 * size * len(name)  # of the name
        if height == LAYER:
            self.words_at(end + 13, self.y + 18, kind, 11)
        else:
            self.words_at(left, self.y + 32, kind, 10 if narrow else 11)
        if count:
            below = height == TALL and end + 3 + 5.6 * len(count) > right
            self.words_at(right, self.y + (32 if below else 18), count, 10 if narrow else 11, more=END + FAINT)
        self.y += height

    def box(self, left: float, right: float, height: float, round: int, fill: float) -> None:
        inside = f'fill="currentColor" fill-opacity="{fill:g}"' if fill else 'fill="none"'
        place = f'x="{left:g}" y="{self.y:g}" width="{right - left:g}" height="{height:g}" rx="{round}"'
        self.elements.append(f'<rect {place} {inside} stroke="currentColor" stroke-opacity="0.6"/>')

    def words_at(self, x: float, y: float, text: str, size: float, font: str = SANS, more: str = "") -> None:
        place = f'x="{x:g}" y="{y:g}" font-family="{font}" font-size="{size:g}" fill="currentColor"'
        self.elements.append(f"<text {place}{more}>{escape(text)}</text>")

    def line(self, path: str) -> None:
        self.elements.append(f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>')

    def arrow(self, x: float, top: float, bottom: float) -> None:
        self.line(f"M{x:g} {top:g}V{bottom:g}")
        self.head(x, bottom, "down")

    def head(self, x: float, y: float, way: str) -> None:
        down, right = f"M{x - 3:g} {y - 5:g}l3 5l3 -5", f"M{x - 5:g} {y - 3:g}l5 3l-5 3"
        self.line(right if way == "right" else down)

    def document(self, title: str, description: str, total: str) -> str:
        """With links it is a group of them; else one image."""
        self.words_at(WIDTH / 2, self.y + 20, total, 12, more=MIDDLE + BOLD)
        height = f"{self.y + 30:g}"
        head = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        role = f'role="{"group" if self.linked else "img"}" aria-labelledby="picture-title picture-text"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="picture" {head} {role}>'
            f'<title id="picture-title">{escape(title)}</title><desc id="picture-text">{escape(description)}</desc>'
            f"{''.join(self.elements)}</svg>"
        )
