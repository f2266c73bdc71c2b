"""What each line of a version is about, so that lines of two versions that say the same can light up together.

A line has concept keys, the one that it is most about first: "layer:conv1", "step:loss", "optimizer:kind",
"constant:BATCH_SIZE". What a key can be is in `concepts.toml`, with the words that say it; layers, dropout and
constants have the text's own names. Layers of blocks that repeat share a key, for the version says them once:
`blocks.0.qkv` and `blocks.1.qkv` are "layer:blocks.N.qkv", and the block as a whole is "layer:blocks.N".

A name says what is on its own line. The function of a call that is broken into several lines, and what is assigned it,
say it of all of them. Where a framework does a step without naming it, the line that causes it has its key.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from dlrosetta import sections
from dlrosetta.site import syntax
from dlrosetta.site.syntax import Word
from dlrosetta.site.vocabulary import CAUSED_BY, KINDS, LABELS, OPS, label, plain, said

if TYPE_CHECKING:
    from dlrosetta.frameworks import Framework
    from dlrosetta.texts import Text

__all__ = ["LABELS", "concepts", "folded", "key_of", "label", "layer_keys", "op_of", "own_concepts"]

# Functions that have one name in every version.
FUNCTIONS = (
    "load_data", "preprocess", "batches", "build_model", "loss_fn", "make_optimizer", "train_step", "predict",
    "evaluate", "generate", "main",
)  # fmt: skip
FORWARD = ("forward", "__call__", "call", "construct", "execute", "hybrid_forward")  # how frameworks name it
SPREAD = 10  # lines of a call beyond which its name no longer says what each of them is about
MANY = 3  # layers on a line beyond which it is not about one of them


def concepts(text: Text, framework: Framework) -> dict[int, tuple[str, ...]]:
    """Concept keys of a version's lines, by line number from 1, what the line is most about first.

    Lines about nothing (blank ones, comments, brackets) are left out. Empty where there is no version.
    """
    path = text.folder / framework.version_file(text.name)
    return _Version(text, framework).lines() if path.is_file() else {}


def layer_keys(text: Text) -> dict[str, list[str]]:
    """The layers of the text in full size, by key, in order of computation: "layer:blocks.N.qkv" to blocks.0.qkv, …"""
    found: dict[str, list[str]] = defaultdict(list)
    for layer in text.full_layers:
        found[key_of(layer["name"])].append(layer["name"])
    return dict(found)


def op_of(layer: dict) -> str:
    """The operation of a layer with parameters, by their roles: "op:convolution"."""
    specs = list(layer["parameters"].values())
    if any("gates" in spec for spec in specs):
        return OPS["gates"]
    for spec in specs:
        if spec["role"] in OPS:
            return OPS[spec["role"]]
    return "op:batch-norm" if any(spec["role"] == "statistic" for spec in specs) else "op:layer-norm"


def key_of(name: str) -> str:
    """`layer:blocks.N.qkv` of `blocks.0.qkv`: where there are several of a block, the number is no matter."""
    block, dot, leaf = name.rpartition(".")
    return f"layer:{folded(block)}{dot}{leaf}"


def folded(block: str) -> str:
    """`layer1.0` is one of the blocks `layerN.N`."""
    return re.sub(r"\d+", "N", block)


class _Version:
    """One version being read; `found` maps lines to keys and how strongly they are meant (less is more)."""

    def __init__(self, text: Text, framework: Framework):
        self.text = text
        self.path = text.folder / framework.version_file(text.name)
        self.words = syntax.words(self.path)
        self.folder = framework.adapter.parent  # with the framework's own words for concepts, if it has any
        self.trains = framework.trains(text.trains)
        source = self.path.read_text(encoding="utf-8")
        self.sections = {
            number: part.name
            for part in sections.split(source)
            for number in range(part.start, part.start + len(part.lines))
        }
        self.code = {
            n for n, line in enumerate(source.splitlines(), 1) if re.match(r"(?!\s*(#|//)).*[^\s()\[\]{},;]", line)
        }
        self.groups = _groups(text)
        self.kinds = {key_of(layer["name"]): op_of(layer) for layer in text.full_layers}
        self.aliases = _aliases(text, framework)
        self.made: dict[str, set[str]] = defaultdict(set)  # function or class of the file: layers that it makes
        self.weak: dict[int, set[str]] = defaultdict(set)  # layers that a line mentions and neither makes nor calls
        self.found: dict[int, set[str]] = defaultdict(set)

    def lines(self) -> dict[int, tuple[str, ...]]:
        by_scope = self._scopes()
        for word in self.words:
            self._layer(word, by_scope.get(word.scope[0] if word.scope else "", ""))
            self._names(word)
        self._bodies(by_scope)
        self._classes(by_scope)
        self._loops()
        self._caused()
        return {line: self._ordered(line, keys) for line, keys in sorted(self.found.items()) if keys}

    def _add(self, key: str, word: Word) -> None:
        spread = range(word.first, word.last + 1) if word.last - word.first < SPREAD else (word.line,)
        for line in spread:
            self.found[line].add(key)

    # -- layers --------------------------------------------------------------------------------------------------------

    def _scopes(self) -> dict[str, str]:
        """Group of layers that each class or function of the file is about: that with most of its names in it."""
        seen: dict[str, set[str]] = defaultdict(set)
        for word in self.words:
            if word.scope:
                seen[word.scope[0]] |= {part for part, _ in self._parts(word)}

        def fit(names: set[str], group: str) -> tuple[int, float]:
            shared = len(names & self.groups[group].keys())
            return shared, shared / len(self.groups[group])

        best = {scope: max(self.groups, key=lambda group: fit(names, group)) for scope, names in seen.items()}
        return {scope: group for scope, group in best.items() if fit(seen[scope], group)[0]}

    def _parts(self, word: Word) -> list[tuple[str, bool]]:
        """Names within a word that may be a layer's, and whether each is the word's last."""
        if word.kind == "string":
            parts = word.name.split(".")
        elif word.kind != "name":
            return []
        elif len(word.parts) > 1 or self.path.suffix != ".py":
            parts = word.parts if self.path.suffix != ".py" else word.parts[1:]
        else:  # a variable, where it is made: `conv1, conv2 = conv(…), conv(…)`
            made = word.defines and word.made_by.rpartition(".")[2] not in ("", "partial")
            parts = word.parts if made and self.sections.get(word.line) == "Model" else []
            parts = parts if parts or not _field(word) else word.parts
        return [(self.aliases.get(part, part), number == len(parts)) for number, part in enumerate(parts, 1)]

    def _layer(self, word: Word, group: str) -> None:
        if self.sections.get(word.line) not in ("Model", "Evaluation", "Loss"):
            return
        for part, last in self._parts(word):
            for key in self._keys(part, group):
                meant = (last and (word.called or word.defines)) or word.kind == "string"
                self._add(key, word)
                if not meant:
                    self.weak[word.line].add(key)
                if last and word.defines and key in self.kinds:
                    self._add(self.kinds[key], word)
                if last and word.defines and word.made_by:
                    self.made[word.made_by].add(key)

    def _keys(self, part: str, group: str) -> list[str]:
        """Keys of the layer called `part` among those of a group, else in whichever group has it; "layer{}" is all
        blocks of that name.
        """
        if "{}" in part:
            pattern = re.compile(re.escape(part).replace(r"\{\}", r"\d+"))
            return [key for name, key in self.groups[""].items() if pattern.fullmatch(name)]
        for one in (group, *self.groups):
            if part in self.groups[one]:
                return [self.groups[one][part]]
        return []

    def _bodies(self, by_scope: dict[str, str]) -> None:
        """What the file's own classes and functions of layers say: of one layer, or of a block, all of their lines;
        of several layers of a kind, what kind that is.
        """
        for one in syntax.definitions(self.path):
            if self.sections.get(one.last) != "Model":
                continue
            keys = self.made.get(one.name, set())
            group = by_scope.get(one.name, "")
            if group:
                keys = {f"layer:{group}"}
            elif len(keys) > 1:
                ops = {self.kinds.get(key, "") for key in keys}
                keys = ops if len(ops) == 1 else set()
            for word in self.words:  # where the block is made
                if group and word.name == one.name and word.kind in ("name", "definition"):
                    self._add(f"layer:{group}", word)
            for line in range(one.first, one.last + 1):
                if line in self.code and not any(key.startswith("layer:") for key in self.found[line]):
                    self.found[line] |= keys - {""}

    def _classes(self, by_scope: dict[str, str]) -> None:
        """The model's class, where it is defined and made; constructors and forward passes, of it and of its parts."""
        own = {
            one.name
            for one in syntax.definitions(self.path)
            if self.sections.get(one.last) == "Model"
            and by_scope.get(one.name) == ""
            and one.name not in (*FUNCTIONS, *FORWARD)
        }
        for word in self.words:
            if self.sections.get(word.line) != "Model":
                continue
            if word.name in own and (word.called or word.kind == "definition"):
                self._add("model:class", word)
            if (word.name == "__init__" and word.kind == "definition") or word.name == ".__init__":
                self.found[word.line].add("model:constructor")
            if word.name in FORWARD and (word.kind == "definition" or self.path.suffix != ".py"):
                self.found[word.line].add("model:forward")

    # -- everything else -----------------------------------------------------------------------------------------------

    def _names(self, word: Word) -> None:
        section = self.sections.get(word.line, "")
        last = word.parts[-1]
        if word.kind == "import":
            self._add("import", word)
            return
        constant = last.isupper() and len(last) > 1 and word.kind == "name"
        if constant and (last in self.text.hyperparameters or section == "Configuration"):
            kind = "constant" if last in self.text.hyperparameters else "setting"  # of the version's own
            self.found[word.line].add(f"{kind}:{last}")
            self.found[word.line] |= {
                f"layer:{one['name']}" for one in self.text.dropout if one["constant"] == last and section == "Model"
            }
        if last in FUNCTIONS and word.kind in ("name", "definition"):
            self.found[word.line].add(f"function:{last}")
        if "generate" in word.scope:
            self.found[word.line].add("generate")
        if word.kind == "keyword" and word.made_by in FUNCTIONS:
            return  # `batches(…, training=False)` is no mode of a model
        for key in said(_tails(word), section, self.folder):
            if key.startswith("step:") and section == "Configuration":
                continue  # `CLIP_NORM = 1.0` is a constant
            if not (key.startswith("op:") and (constant or word.kind == "string")):
                self._add(key, word)

    def _loops(self) -> None:
        """A loop is about what all lines of its body are; and a body about nothing, about the layers looped over."""
        for loop in syntax.loops(self.path):
            inner = [self.found[line] for line in loop.body if line in self.code]
            over = {key for key in self.found[loop.line] if key.startswith("layer:")}
            if any(inner) and over == self.found[loop.line]:
                self.found[loop.line] |= set.intersection(*inner)
            elif not any(inner) and 0 < len(over) <= MANY:
                for keys in inner:
                    keys |= over

    def _caused(self) -> None:
        if not self.trains:
            return
        for step, cause in CAUSED_BY:
            if not any(step in keys for keys in self.found.values()):
                for keys in self.found.values():
                    keys |= {step} if cause in keys else set()

    def _ordered(self, line: int, keys: set[str]) -> tuple[str, ...]:
        layers = [key for key in keys if key.startswith("layer:")]
        aside = set(layers) if len(layers) > MANY else self.weak[line] if "init" in keys else set()

        def rank(key: str) -> tuple[bool, int, str]:
            return key in aside, KINDS.index(key.partition(":")[0]), key

        return tuple(sorted(keys, key=rank))


def _field(word: Word) -> bool:
    """A class's field: `conv1: nn.Conv2d`."""
    return word.defines and len(word.scope) == 1 and word.scope[0][:1].isupper()


def _groups(text: Text) -> dict[str, dict[str, str]]:
    """Names of layers and their keys, by the block that they are in: "" is the model itself, whose blocks are among
    its names.
    """
    found: dict[str, dict[str, str]] = {"": {}}
    for layer in text.full_layers:
        block, _, leaf = layer["name"].rpartition(".")
        found.setdefault(folded(block), {})[leaf] = key_of(layer["name"])
        if block:
            first = block.split(".")[0]
            found[""][first] = f"layer:{first}"
    found[""].update({one["name"]: f"layer:{one['name']}" for one in text.dropout})
    return found


def _aliases(text: Text, framework: Framework) -> dict[str, str]:
    """What a framework calls layers, or parts of one, otherwise than the text: `dense_i` of Flax is the text's gru."""
    found = {}
    for canonical, native in text.names_for(framework.slug, framework.version).items():
        layer = canonical.rpartition(".")[0]
        for part in native.split(".")[:-1]:
            found[part] = layer.rpartition(".")[2]
    return found


def own_concepts(word: Word, section: str, framework: Framework) -> set[str]:
    """What a name says by itself, whatever else its line is about: `shuffle=` is about shuffling in every line, and
    `kernel_init=` about initial values. What operation it is is not among it: a line of a layer is about that layer.
    """
    others = ("op:", "model:", "seed") if word.kind == "keyword" else ("op:", "model:", "seed", "init")
    return {key for key in said(_tails(word), section, framework.adapter.parent) if not key.startswith(others)}


def _tails(word: Word) -> set[str]:
    """The ends of a name as the table has them: `nn.init.zeros_` is "zeros", "init.zeros", "nn.init.zeros"."""
    if word.kind == "keyword":
        return {f"{plain(word.name)}=", f"{plain(word.name)}={plain(word.value)}"}
    found = set()
    for name in {word.name, word.full}:
        parts = plain(name).split(".")
        found |= {".".join(parts[start:]) for start in range(len(parts))}
        found |= {plain(part) for part in name.split(".") if part.isupper()}
    return found | ({f"{tail}()" for tail in found} if word.called else set())
