"""What a page is, and what several kinds of pages show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlrosetta.site.material import Material

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker

Context = dict[str, Any]
ORDER = ("proven", "evaluates", "waived", "differs", "failed", "cannot", "changed", "not run", "none")


@dataclass(frozen=True)
class Page:
    """`path` is the address below the language's folder; `make` gives the template what it shows."""

    path: str
    template: str
    make: Callable[[Maker], Context]

    @property
    def file(self) -> str:
        return f"{self.path}index.html" if self.path.endswith("/") or not self.path else self.path


def shared(everything: Material) -> Context:
    """What the list of texts and the matrix show."""
    states = {
        text.name: {slug: everything.state(text, one) for slug, one in everything.frameworks.items()}
        for text in everything.texts
    }
    there = {state for some in states.values() for state in some.values()}
    return {
        "all_texts": everything.texts,
        "all_frameworks": by_title(everything),
        "all_versions": everything.versions,
        "parameters": {text.name: everything.parameters(text) for text in everything.texts},
        "leads": {text.name: everything.lead(text) for text in everything.texts},
        "states": states,
        "present": [state for state in ORDER if state in there],
    }


def by_title(everything: Material) -> list[Any]:
    """Frameworks, alphabetically."""
    return sorted(everything.frameworks.values(), key=lambda one: one.title.lower())


def choices(everything: Material) -> list[tuple[str, str]]:
    """Slug and title of every version that some text has, by title."""
    found = {slug: one.title for some in everything.versions.values() for slug, one in some.items()}
    return sorted(found.items(), key=lambda item: item[1].lower())
