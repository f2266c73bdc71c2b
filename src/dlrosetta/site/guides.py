"""Pages to read: the docs, what is said of each text, and what is known of each framework."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from dlrosetta.frameworks import Framework
from dlrosetta.site import facts, prose
from dlrosetta.site.material import DOCS, Material
from dlrosetta.site.page import Context, Page, choices, shared
from dlrosetta.texts import Text

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker


def all_pages(everything: Material) -> Iterator[Page]:
    yield Page("docs/", "docs", partial(_docs, everything))
    for name in everything.docs:
        yield Page(f"docs/{name}.html", "prose", partial(_document, everything.docs[name], None))
    for text in everything.texts:
        yield Page(f"texts/{text.name}/about.html", "prose", partial(_document, everything.readmes[text.name], text))
    yield Page("frameworks/", "frameworks", partial(_frameworks, everything))
    for framework in everything.frameworks.values():
        yield Page(f"frameworks/{framework.slug}.html", "framework", partial(_framework, everything, framework))


def _docs(everything: Material, maker: Maker) -> Context:
    first, last = list(DOCS)[:1], list(DOCS)[1:]
    between = [name for name in everything.docs if name not in DOCS]
    names = [name for name in (*first, *between, *last) if name in everything.docs]
    return {"documents": [(name, everything.docs[name], lead(everything.docs[name])) for name in names]}


def lead(document: prose.Prose) -> str:
    """The first sentence of a document, as plain text."""
    tokens = [token for part in document.parts for token in part.tokens]
    paragraph = next((at for at, token in enumerate(tokens) if token.type == "paragraph_open"), None)
    said = prose.plain(tokens[paragraph + 1]) if paragraph is not None else ""
    return re.split(r"(?<=[.?])\s", said)[0]


def _document(document: prose.Prose, text: Text | None, maker: Maker) -> Context:
    parts = [part for part in document.parts if part.level in (2, 3)]
    few = [part for part in parts if part.level == 2]
    return {
        "title": document.title,
        "heading": document.title,
        "text": text,
        "html": document.html(maker.resolve),
        "contents": parts if len(parts) <= 40 else few,
    }


def _frameworks(everything: Material, maker: Maker) -> Context:
    found = shared(everything)
    without = ("none", "cannot")
    counts = {
        slug: sum(some[slug] not in without for some in found["states"].values()) for slug in everything.frameworks
    }
    return {**found, "counts": counts}


def _framework(everything: Material, framework: Framework, maker: Maker) -> Context:
    if framework.slug not in everything.facts:
        everything.facts[framework.slug] = facts.facts(framework, everything.texts)
    known = everything.facts[framework.slug]
    there = []
    for text in everything.texts:
        version = everything.versions[text.name].get(framework.version)
        own = version if version and framework in version.frameworks else None
        there.append((text, own, everything.state(text, framework)))
    friends = [(hurts, [one for one in known["friends"] if one["hurts"] == hurts]) for hurts in (*facts.HURTS, "")]
    faults = [(text, [one for one in known["faults"] or [] if one["text"] == text.name]) for text in everything.texts]
    return {
        "framework": framework,
        "facts": known,
        "there": there,
        "others": [(slug, title) for slug, title in choices(everything) if slug != framework.version],
        "friends": [(hurts, some) for hurts, some in friends if some],
        "faults": [(text, some) for text, some in faults if some],
        "told": lambda one: prose.parse(f"stone/{one['text']}/README.md", one["prose"]).html(maker.resolve),
        "adapter": prose.parse("", known["adapter"] or "").html(maker.resolve),
        "titles": {text.name: text for text in everything.texts},
    }
