"""`rosetta site build`: the reading room as a folder of static pages, from the tree and its result files.

Every page is made once a language and refers to others by relative addresses, so that the folder may lie below any
address. Pages need no script to be read, load nothing from elsewhere, and their policy forbids both that and anything
inline. What a file of the tree says is text: Jinja escapes it.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dlrosetta import __version__, console, paths
from dlrosetta.errors import RosettaError
from dlrosetta.site import material, pages, proofs, words
from dlrosetta.site.material import Material

HERE = paths.PACKAGE / "site"
MARK = ".dlrosetta-site"  # in a folder that this program made, and may therefore replace
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'"


def default() -> Path:
    """Where the site is put unless somebody says otherwise; it can be made again."""
    return paths.cache_dir() / "site"


def show(output: str | None, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """Build, and say where."""
    folder = Path(output).resolve() if output else default()
    with console.err().status("writing pages"):
        count = build(folder, stone, frameworks_dir, paths.project_results())
    console.out().print(f"wrote {count} pages to {folder}", soft_wrap=True, markup=False)
    console.out().print(f"Next: rosetta site serve{f' {output}' if output else ''}", soft_wrap=True, markup=False)
    return 0


def build(folder: Path, stone: tuple[str, ...], frameworks_dir: tuple[str, ...], published: Path | None) -> int:
    """Write the site into `folder`, all or nothing; return the number of pages. A folder that holds something else is
    left alone: RosettaError.
    """
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RosettaError(
            f"Expected a folder that is empty, new, or of an earlier build. Received: {folder}",
            "rosetta site build --output NEW_FOLDER",
        )
    everything = material.gather(stone, frameworks_dir, published)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        count = _write(beside, everything)
        (beside / MARK).write_text(f"{__version__}\n")
        beside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _write(folder: Path, everything: Material) -> int:
    shutil.copytree(HERE / "static", folder / "static")
    count = 0
    for place, content in pages.data(everything).items():
        _put(folder / place, content)
    for language in words.LANGUAGES:
        environment = _environment(words.load(language))
        for page in pages.all_pages(everything):
            made = Maker(environment, everything, language, page.path)
            _put(folder / made.prefix / page.file, made.render(page).encode())
            count += 1
    for place, path in everything.files.items():
        _put(folder / place, path.read_bytes())
    return count


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _environment(vocabulary: words.Words) -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.globals |= {
        "w": words.Table(vocabulary), "program": __version__, "policy": POLICY, "number": console.number,
        "mark": proofs.mark,
        "per_second": console.per_second,
    }  # fmt: skip
    environment.globals["titled"] = lambda text: vocabulary["titles"].get(text.name, text.title)
    environment.filters["linked"] = linked
    return environment


def linked(text: str) -> Markup:
    """A reason with its addresses as links; all else is text."""
    return Markup(re.sub(r"https?://[^\s()<>]+(?<![.,;:])", r'<a href="\g<0>">\g<0></a>', str(escape(text))))


def prefix(language: str) -> str:
    """The folder of a language: the first stands at the root."""
    return "" if language == words.LANGUAGES[0] else f"{language}/"


@dataclass(frozen=True)
class Maker:
    """Makes one page: knows where it stands, and so how to refer to others."""

    environment: Any
    everything: Material
    language: str
    path: str  # of the page, without language: "texts/cnn/", "docs/start.html", "404.html"

    @property
    def prefix(self) -> str:
        """The folder of the language: "" or "zh/"."""
        return prefix(self.language)

    @property
    def root(self) -> str:
        """From the page to the root of the site. The page for what is missing may be shown anywhere."""
        if self.path == "404.html":
            return "/"
        return "../" * (self.prefix + self.path).count("/") or "./"

    def to(self, path: str) -> str:
        """The address of another page of the same language."""
        return self.root + self.prefix + path

    def static(self, name: str) -> str:
        return f"{self.root}static/{name}"

    def resolve(self, place: str) -> str | None:
        """The address of what shows a file of the repository; "" and None as in Material.page_of."""
        page = self.everything.page_of(place)
        if not page:
            return page
        return self.root + page if page.startswith("files/") else self.to(page)

    def languages(self) -> Iterator[tuple[str, str, str]]:
        """Code, name and address of this page in the other languages."""
        for language in words.LANGUAGES:
            if language != self.language:
                known = words.load(language)["site"]
                there = prefix(language) + ("" if self.path == "404.html" else self.path)
                yield known["code"], known["language"], self.root + there

    def render(self, page: pages.Page) -> str:
        others = list(self.languages())
        known = {
            "root": self.root, "to": self.to, "static": self.static, "kind": page.template,
            "here": page.path.partition("/")[0],
            "languages": others, "alternates": [(code, there) for code, _, there in others],
            "file": lambda path: self.root + self.everything.file(path, f"stone/{path.parent.name}/{path.name}"),
        }  # fmt: skip
        context = page.make(self)
        return self.environment.get_template(f"{page.template}.html.j2").render({**known, **context})
