"""A version as a Jupyter notebook: a cell that installs, then its sections, each under its heading, unchanged.

It runs as it is, on Colab or anywhere: the first cell installs what the framework's `requirements.in` pins (the
versions that proofs hold for) and dlrosetta without what that depends on, for a version needs its data readers alone,
and sets the environment variables that the framework needs before it is imported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dlrosetta import reading, sections

if TYPE_CHECKING:
    from dlrosetta.frameworks import Framework
    from dlrosetta.texts import Text

OLDEST = (3, 10)  # of Python, for dlrosetta is installed beside the framework


def notebook(text: Text, framework: Framework) -> dict[str, Any] | None:
    """The version as a notebook of format 4; None where there is none, where it is not Python, or where the framework's
    Python is too old to install dlrosetta in.

    The same version gives the same notebook, to the byte: cells are numbered.
    """
    import jupytext
    import nbformat

    path = text.folder / framework.version_file(text.name)
    if path.suffix != ".py" or not path.is_file() or _python(framework) < OLDEST:
        return None
    source = path.read_text(encoding="utf-8")
    made = jupytext.reads(_headed(source), fmt="py:percent")
    title = reading.title_of(source.splitlines())
    made.cells[:0] = [
        nbformat.v4.new_markdown_cell(_introduction(text, framework, title)),
        nbformat.v4.new_code_cell(_install(framework)),
    ]
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"name": f"{path.stem}.ipynb"},
    }
    nbformat.validate(made)
    return json.loads(nbformat.writes(made))


def _python(framework: Framework) -> tuple[int, ...]:
    return tuple(int(part) for part in (framework.python or "0").split("."))


def _headed(source: str) -> str:
    """The source in jupytext's percent format, section names as headings; without the docstring, which is the title."""
    cells = []
    for section in sections.split(source):
        if section.name:
            body = "\n".join(section.lines).strip("\n")
            cells.append(f"# %% [markdown]\n# ## {section.name}\n\n# %%\n{body}\n")
    return "\n".join(cells)


def _introduction(text: Text, framework: Framework, title: str) -> str:
    return (
        f"# {title.rstrip('.')}\n\n"
        f"One of the versions of `{text.name}`; `rosetta prove {text.name}` proves that they are the same model. "
        f"Made for Python {framework.python} and what the next cell installs. Where the data set is not in the data "
        "folder (`ROSETTA_DATA`), a small sample that comes with dlrosetta stands in."
    )


def _install(framework: Framework) -> str:
    lines = framework.requirements.read_text(encoding="utf-8").splitlines()
    pins = [pin for pin in (line.partition("#")[0].strip() for line in lines) if pin]
    quoted = " ".join(json.dumps(pin) for pin in pins)
    code = [f"%pip install --quiet {quoted}", "%pip install --quiet --no-deps dlrosetta"]
    fixed = {name: value for name, value in framework.env.items() if "{" not in value}
    if fixed:
        code += ["", "import os", ""] + [f'os.environ["{name}"] = {json.dumps(value)}' for name, value in fixed.items()]
    return "\n".join(code)
