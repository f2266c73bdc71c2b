"""The concordance's page: the search, and all names by letter for readers without scripts.

The index is `concordance.build`'s; the page's script does with it what `concordance.search` does.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from dlrosetta.site import concordance, words
from dlrosetta.site.material import Material
from dlrosetta.site.page import ORDER, Context, Page, choices
from dlrosetta.site.proofs import mark

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker

FOLDER = "data/concordance/"


def all_pages(everything: Material) -> Iterator[Page]:
    yield Page("concordance/", "concordance", partial(_page, everything))


def data(everything: Material) -> dict[str, bytes]:
    """The index, by address."""
    return {
        FOLDER + name: json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        for name, document in _documents(everything).items()
    }


def _documents(everything: Material) -> dict[str, Any]:
    if everything.index is None:
        everything.index = concordance.build(everything.texts, everything.frameworks)
    return everything.index


def _page(everything: Material, maker: Maker) -> Context:
    verdicts = words.load(maker.language)["verdict"]
    states = {
        text.name: {slug: everything.state(text, one) for slug, one in everything.frameworks.items()}
        for text in everything.texts
    }
    return {
        "scripts": ["choose.js", "search.js"],
        "choices": choices(everything),
        "titles": words.load(maker.language)["titles"],
        "states": states,
        "marks": {state: f"{mark(state)} {verdicts[state]}" for state in ORDER},
        "letters": _letters(everything),
        "maker_language": maker.language,
        "w_sections": words.load(maker.language)["sections"],
    }


def _letters(everything: Material) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Names by their first letter: name in full, address of a line that uses it, title of the version."""
    documents = _documents(everything)
    index = documents["index.json"]
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for file in index["names"]:
        for name, _, places in documents[file]["names"]:
            text, slug = _version(everything, index, places[1])
            address = f"texts/{text}/{slug}.html#{slug}-L{places[2]}"
            first = name[0].upper()
            found[first if first.isalpha() else "#"].append((name, address, slug))
    return [(letter, sorted(some, key=lambda one: one[0].lower())) for letter, some in sorted(found.items())]


def _version(everything: Material, index: dict[str, Any], number: int) -> tuple[str, str]:
    """Text and slug of a version of the index."""
    text, file, _ = index["versions"][number]
    name = index["texts"][text][0]
    slug = next(slug for slug, one in everything.versions[name].items() if one.path.name == file)
    return name, slug
