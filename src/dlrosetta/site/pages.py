"""Which pages there are, and what each is given: the address, the template, and what the template shows.

A page is made in every language from the same material; what differs between languages are the interface's words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from dlrosetta.site import evidence, guides, lines, notebooks, pictures, search, speeds, versions
from dlrosetta.site.material import Material
from dlrosetta.site.page import Context, Page, choices, shared
from dlrosetta.texts import Text

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker

FIRST = ("torch", "flax")  # the columns that a text opens with, where it has them


def data(everything: Material) -> dict[str, bytes]:
    """Files that are made, by address: what scripts read, and notebooks."""
    found = search.data(everything)
    for text in everything.texts:
        for framework in everything.frameworks.values():
            made = notebooks.notebook(text, framework)
            if made is not None:
                address = f"files/notebooks/{text.name}_{framework.slug}.ipynb"
                everything.notebooks[text.name, framework.slug] = address
                found[address] = json.dumps(made, ensure_ascii=False, indent=1).encode()
    return found


def all_pages(everything: Material) -> Iterator[Page]:
    """Every page that there is in each language."""
    yield Page("", "home", lambda maker: _home(everything))
    yield Page("404.html", "404", lambda maker: shared(everything))
    yield Page("texts/", "texts", lambda maker: shared(everything))
    yield from _texts(everything)
    yield from evidence.all_pages(everything)
    yield from guides.all_pages(everything)
    yield from search.all_pages(everything)
    yield from speeds.all_pages(everything)


def _home(everything: Material) -> Context:
    sample = next((text for text in everything.texts if text.name == "gru"), everything.texts[0])
    there = everything.versions[sample.name]
    return {
        **shared(everything),
        "scripts": ["columns.js", "choose.js"],
        "most": max(len([s for s in v.values() for f in s.frameworks]) for v in everything.versions.values()),
        "sample": sample,
        "excerpt": [there[slug] for slug in _first(there)],
        "choices": choices(everything),
    }


def _first(there: dict[str, versions.Version]) -> list[str]:
    wanted = [slug for slug in FIRST if slug in there]
    return (wanted + [slug for slug in there if slug not in wanted])[:2]


# -- texts -------------------------------------------------------------------------------------------------------------


def _texts(everything: Material) -> Iterator[Page]:
    for text in everything.texts:
        there = everything.versions[text.name]
        yield Page(f"texts/{text.name}/", "text", partial(_columns, everything, text, _first(there), True))
        for slug in there:
            yield Page(f"texts/{text.name}/{slug}.html", "text", partial(_columns, everything, text, [slug], False))


def _columns(everything: Material, text: Text, slugs: list[str], whole: bool, maker: Maker) -> Context:
    """Versions in columns; `whole`: with notes and all that a reader chooses from."""
    there = everything.versions[text.name]
    shown = [there[slug] for slug in slugs]
    readme = everything.readmes[text.name]
    names = versions.section_names(there.values() if whole else shown)
    # Notes of no section are shown before them; prose on proofs and figures has a page of its own.
    general = ("what to look at", "the equation", "on several devices")
    return {
        "scripts": ["columns.js"],
        "text": text,
        "versions": shown,
        "every": list(there.values()),
        "cells": everything.cells(text),
        "names": names,
        "notes": {name: readme.notes(name, maker.resolve) for name in names if whole},
        "leads": {text.name: everything.lead(text)},
        "intro": readme.html(maker.resolve, lambda part: part.level == 0 and whole),
        "general": readme.html(maker.resolve, lambda part: part.title.lower() in general and whole),
        "whole": whole,
        "labels": lines.LABELS[maker.language],
        "picture": _picture(everything, text, maker) if whole else "",
        "notebooks": everything.notebooks,
    }


def _picture(everything: Material, text: Text, maker: Maker) -> Markup:
    """The model, each layer linked to the first line of the first column that is about it."""
    version = everything.versions[text.name][_first(everything.versions[text.name])[0]]
    about: dict[str, int] = {}
    for some in version.sections.values():
        for line in some:
            for concept in line.concepts:
                about.setdefault(concept, line.number)
    link = {concept: f"#{version.slug}-L{number}" for concept, number in about.items()}.get
    return Markup(pictures.svg(text, maker.language, link))
