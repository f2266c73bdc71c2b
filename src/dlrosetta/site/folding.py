"""The steps of a model as they are drawn: blocks that repeat as one part, and what lies beside the main path."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dlrosetta.site.lines import folded, key_of
from dlrosetta.site.trace import Step

JOINS = ("op:add", "op:concatenate")  # steps that take two


@dataclass
class Part:
    """What is drawn as one: a step, or the blocks of a group ("layer1") folded, whose steps those are."""

    steps: list[Step]
    numbers: list[int]  # of the steps, in the whole model
    group: str = ""
    blocks: int = 0

    @property
    def parameters(self) -> int:
        return sum(step.parameters for step in self.steps)

    @property
    def concept(self) -> str:
        if self.group:
            return f"layer:{self.group}"
        return key_of(self.steps[0].layer) if self.steps[0].layer else self.steps[0].concept

    def inputs(self) -> set[int]:
        """Numbers of the steps outside it whose output it takes."""
        return {source for step in self.steps for source in step.sources} - set(self.numbers)


def blocks_of(steps: list[Step]) -> list[str]:
    """The block that each step is in, "" for none. Operations belong to the block of the layer before them, but what
    comes only after a last block (a mean) to none.
    """
    found, block = [], ""
    for step in steps:
        block = step.block if step.layer else block
        found.append(block)
    tails: dict[str, int] = {}  # operations after a block's last layer: as many as after any of its kind
    for name in dict.fromkeys(found):
        own = [number for number, one in enumerate(found) if one == name]
        tail = own[-1] - max((number for number in own if steps[number].layer), default=own[-1])
        tails[folded(name)] = min(tail, tails.get(folded(name), tail))
    last = -1
    for number, name in enumerate(found):
        last = number if steps[number].layer else last
        if name and number - last > tails[folded(name)]:
            found[number] = ""
    return found


def parts_of(steps: list[Step], blocks: list[str]) -> list[Part]:
    """Steps in order; those of a group's blocks as one."""
    found: list[Part] = []
    for number, (step, block) in enumerate(zip(steps, blocks, strict=True)):
        group = block.split(".")[0]
        if group and found and found[-1].group == group:
            found[-1].steps.append(step)
            found[-1].numbers.append(number)
        else:
            found.append(Part([step], [number], group))
    for part in found:
        part.blocks = len({blocks[number] for number in part.numbers}) if part.group else 0
    return found


def families(steps: list[Step], blocks: list[str]) -> dict[str, tuple[list[Part], int, dict[str, int]]]:
    """Of each kind of block ("layerN.N") the parts of the first, how many there are, and in how many each of its layers
    is.
    """
    found: dict[str, tuple[list[Part], int, dict[str, int]]] = {}
    for family in dict.fromkeys(folded(block) for block in blocks if block):
        names = list(dict.fromkeys(block for block in blocks if folded(block) == family))
        first = [Part([step], [n]) for n, step in enumerate(steps) if blocks[n] == names[0]]
        leaves = [step.layer.rpartition(".")[2] for n, step in enumerate(steps) if folded(blocks[n]) == family]
        found[family] = first, len(names), {leaf: leaves.count(leaf) for leaf in set(leaves) - {""}}
    return found


def _chain(number: int, own: dict[int, Step]) -> list[int]:
    """Steps of a column from one back to where it begins, that one first."""
    found = []
    while number in own:
        found.append(number)
        sources = own[number].sources
        number = ways(number, own)[0] if own[number].concept in JOINS else sources[0] if sources else -2
    return found


def by_number(parts: list[Part]) -> dict[int, Step]:
    """The steps of a column by number. A group is one step, numbered as its last, that takes what its first does."""
    return {part.numbers[-1]: replace(part.steps[0], concept="") if part.group else part.steps[0] for part in parts}


def ways(join: int, own: dict[int, Step]) -> tuple[int, int]:
    """The two sources of a sum: that of the main path, which is the longer one and begins with an input, and the other.

    Two sources are all that texts have.
    """
    one, other = own[join].sources

    def length(number: int) -> tuple[bool, int]:
        chain = _chain(number, own)
        return not chain or bool(own[chain[-1]].sources), len(chain)

    return (one, other) if length(one) >= length(other) else (other, one)


def branches_of(parts: list[Part]) -> dict[int, list[Part]]:
    """By the number of a sum or concatenation, the layers beside the main path that it takes too, in order."""
    own = by_number(parts)
    found = {}
    for number, step in own.items():
        if step.concept in JOINS:
            main, other = (_chain(source, own) for source in ways(number, own))
            beside = [one for one in other if one not in main]
            found[number] = [part for part in parts if part.numbers[-1] in beside]
    return found
