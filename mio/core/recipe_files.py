"""Reading recipe files: YAML with line numbers, checked against the schema key by key, every problem collected.

YAML is read by the core schema of YAML 1.2 (`3e-5` is a number, `on` and `12:20` are text), without tags: a recipe
cannot name anything to execute.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import yaml

from mio.core.errors import RecipeError
from mio.core.schema import Recipe
from mio.core.suggest import nearest
from mio.core.transformer.config import TransformerConfig

REPLACE = "_replace_"
"""Key of a mapping that takes the place of what earlier files put there, rather than being merged into it."""

Key = tuple[str, ...]


@dataclass
class Layer:
    """What one file or override says: `content` by key, `marks` the place of each key, for messages."""

    origin: str
    content: dict[str, Any]
    marks: dict[Key, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)
    """Folder that relative paths inside the layer start from."""

    def mark(self, key: Key) -> str:
        """Place of the key, or of the closest key around it."""
        while key and key not in self.marks:
            key = key[:-1]
        return self.marks.get(key, self.origin)


class _Loader(yaml.SafeLoader):
    """Plain data by the YAML 1.2 core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
    list("-+.0123456789"),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
# fullmatch semantics: PyYAML uses match(), so every pattern is anchored here once
_Loader.yaml_implicit_resolvers = {
    first: [(tag, re.compile(f"(?:{pattern.pattern})$")) for tag, pattern in resolvers]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, origin: str) -> tuple[Any, dict[Key, str]]:
    """Data of a YAML text and the place of each key. Raises `RecipeError` for bad YAML, tags and repeated keys."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        marks: dict[Key, str] = {}
        problems = list(_walk(node, (), origin, marks, ()))
        if problems:
            raise RecipeError(problems)
        return loader.construct_document(node), marks
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError([f"{origin}{line}: not valid YAML: {error.problem}"]) from None
    except yaml.YAMLError as error:
        raise RecipeError([f"{origin}: not valid YAML: {' '.join(str(error).split())}"]) from None
    finally:
        loader.dispose()


def _at(origin: str, node: yaml.Node) -> str:
    return f"{origin}:{node.start_mark.line + 1}"


def _walk(node: yaml.Node, key: Key, origin: str, marks: dict[Key, str], above: tuple[yaml.Node, ...]) -> Iterator[str]:
    """Fills `marks` and yields the problems that PyYAML lets pass: repeated keys, and aliases of what holds them."""
    if node in above:
        yield f"{_at(origin, node)}: the alias refers to what it is part of"
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            text = str(name.value)
            if text in seen:
                yield f"{_at(origin, name)}: key `{text}` is given twice"
            seen.add(text)
            marks[(*key, text)] = _at(origin, name)
            yield from _walk(value, (*key, text), origin, marks, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            marks[(*key, str(index))] = _at(origin, value)
            yield from _walk(value, (*key, str(index)), origin, marks, (*above, node))


def read_layer(path: Path) -> Layer:
    """The content of a recipe file. Raises `RecipeError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"{path}: cannot be read: {error}"]) from None
    content, marks = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise RecipeError([f"{path}: a recipe is a mapping of keys, not {_kind(content)}"])
    return Layer(str(path), content, marks, path.parent)


def override_layer(text: str) -> Layer:
    """The content of one `key=value` of the command line; the key is dotted, the value YAML."""
    key, _, value = text.partition("=")
    names = key.strip().split(".")
    origin = f"`{text}`"
    if not all(names):
        raise RecipeError([f"{origin}: the key before `=` is empty or has an empty part"])
    data, _ = parse_yaml(f"value: {value}" if "\n" not in value else f"value:\n{value}", origin)
    content: Any = data["value"]
    for name in reversed(names):
        content = {name: content}
    return Layer(origin, content)


_OPENING = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # a `${` behind an even number of backslashes
_KEY_REFERENCE = re.compile(r"[\w./\-\[\]]+\}")


def _interpolation_problem(value: str) -> str:
    """Interpolations may refer to other keys only: a resolver would read the machine or run code."""
    for opening in _OPENING.finditer(value):
        if not _KEY_REFERENCE.match(value, opening.end()):
            return "an interpolation names another key, as in `${train.steps}`, and nothing else; `\\${` is plain text"
    return ""


class SchemaChecker:
    """Checks layers against the schema and collects the problems."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def check(self, layer: Layer, content: Any, prefix: Key = (), without: frozenset[str] = frozenset()) -> Any:
        """`content` of a layer as the schema has it: empty mappings for nothing, whole numbers as floats where floats
        are due. `prefix` is where the content stands inside the layer, `without` names keys that may not be set."""
        self._layer, self._prefix = layer, prefix
        hints = get_type_hints(Recipe)
        if isinstance(content, dict):
            for name in sorted(without & content.keys()):
                self._problem((name,), f"`{name}` cannot be set here: it belongs to one recipe alone")
            content = {name: item for name, item in content.items() if name not in without}
        return self._mapping(content, hints, ())

    def _problem(self, key: Key, text: str) -> None:
        self.problems.append(f"{self._layer.mark((*self._prefix, *key))}: {text}")

    def _mapping(self, value: Any, hints: Mapping[str, Any], key: Key) -> Any:
        value = {} if value is None else value
        if not isinstance(value, dict):
            self._wrong(key, value, "a mapping")
            return {}
        cleaned = {}
        for name, item in value.items():
            if name == REPLACE:
                cleaned[name] = self._value(item, bool, (*key, name))
            elif name not in hints:
                dotted = ".".join((*key, str(name)))
                self._problem((*key, str(name)), f"unknown key `{dotted}`{_suggestion(str(name), key, hints)}")
            else:
                hint = model_hints() if (*key, name) == ("model",) else hints[name]
                cleaned[name] = self._value(item, hint, (*key, name))
        return cleaned

    def _value(self, value: Any, hint: Any, key: Key) -> Any:
        if isinstance(value, str):
            problem = _interpolation_problem(value)
            if problem:
                self._problem(key, f"`{'.'.join(key)}`: {problem}")
                return value
            if _OPENING.search(value):
                return value  # the type is checked when it is resolved
        if isinstance(hint, dict):
            return self._mapping(value, hint, key)
        if is_dataclass(hint):
            return self._mapping(value, get_type_hints(hint), key)
        if get_origin(hint) in (Union, types.UnionType):
            options = [option for option in get_args(hint) if option is not type(None)]
            return None if value is None else self._value(value, options[0], key)
        if get_origin(hint) is dict:
            return self._free_mapping(value, get_args(hint)[1], key)
        if get_origin(hint) is list:
            if not isinstance(value, list):
                self._wrong(key, value, "a list")
                return []
            return [self._value(item, get_args(hint)[0], (*key, str(index))) for index, item in enumerate(value)]
        return self._free(value, key) if hint is Any else self._scalar(value, hint, key)

    def _free_mapping(self, value: Any, hint: Any, key: Key) -> Any:
        value = {} if value is None else value
        if not isinstance(value, dict):
            self._wrong(key, value, "a mapping by name")
            return {}
        cleaned = {}
        for name, item in value.items():
            if not isinstance(name, str):
                self._problem((*key, str(name)), f"`{'.'.join(key)}`: the key {name!r} must be text; put it in quotes")
                continue
            cleaned[name] = self._value(item, bool if name == REPLACE else hint, (*key, name))
        return cleaned

    def _free(self, value: Any, key: Key) -> Any:
        """Plugins' own options: anything plain, but no resolver and no key that is not text."""
        if isinstance(value, dict):
            return self._free_mapping(value, Any, key)
        if isinstance(value, list):
            return [self._value(item, Any, (*key, str(index))) for index, item in enumerate(value)]
        return value

    def _scalar(self, value: Any, hint: type, key: Key) -> Any:
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
            self._wrong(key, value, names[hint])
        return value

    def _wrong(self, key: Key, value: Any, wanted: str) -> None:
        self._problem(key, f"`{'.'.join(key)}` must be {wanted}, not {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the text {value!r}" if isinstance(value, str) else str(value).lower()


def model_hints() -> dict[str, Any]:
    """Types of the keys of `model`: a preset's name and the fields of the transformer."""
    return {"preset": str, **get_type_hints(TransformerConfig)}


def schema_keys(hints: Mapping[str, Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted; `*` stands for a name that the recipe chooses, `[]` for the items of a list."""
    for name, hint in (get_type_hints(Recipe) if hints is None else hints).items():
        key = prefix + name
        yield key
        item: Any = model_hints() if key == "model" else hint
        while get_origin(item) in (dict, list):
            key += ".*" if get_origin(item) is dict else "[]"
            item = get_args(item)[-1]
        if isinstance(item, dict):
            yield from schema_keys(item, f"{key}.")
        elif is_dataclass(item):
            yield from schema_keys(get_type_hints(item), f"{key}.")


def _suggestion(name: str, key: Key, hints: Mapping[str, Any]) -> str:
    """The nearest key at this place, else a key of that very name elsewhere."""
    found = nearest(name, hints)
    if found:
        return found.replace("`", "`" + "".join(f"{part}." for part in key), 1)
    elsewhere = [known for known in schema_keys() if known.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"; did you mean `{elsewhere[0]}`?"
    return f" (known here: {', '.join(hints)})" if key else nearest(name, schema_keys())
