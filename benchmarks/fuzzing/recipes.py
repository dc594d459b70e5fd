"""Recipes that are wrong on purpose, and right ones spelt in strange ways."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import yaml12
from mio.core.contract.backbone import TransformerConfig
from mio.core.contract.plugins import PluginManager
from mio.core.errors import UserError
from mio.core.recipe.compose import compose
from mio.core.recipe.model import transformer_config
from mio.core.recipe.resolved import fingerprint, load_resolved, to_yaml
from mio.core.recipe.schema import Recipe
from mio.core.recipe.yaml_text import parse_yaml
from mio.core.stages.check import check

BASE: dict[str, Any] = {
    "name": "base",
    "plugins": {"text": {"tokenizer": "bytes"}, "image": {"tokenizer": "patch_vq", "size": 8}, "video": {}},
    "model": {"width": 64, "layers": 2, "heads": 2, "rope_scaling": {"kind": "linear", "factor": 2.0}},
    "data": {
        "groups": {
            "pairs": {
                "sources": {
                    "lines": {
                        "dataset": "jsonl",
                        "options": {"path": "pairs.jsonl"},
                        "templates": "own",
                        "filters": {"characters": {"field": "caption", "minimum": 1}, "min_side": {"pixels": 4}},
                    }
                }
            }
        },
        "templates": {"own": [{"direction": "draw", "prompt": "{caption}: ", "response": "{image}"}]},
        "packing": {"context": 96, "window": 16},
    },
    "mixture": {"unit": "rows", "ratios": {"pairs": 1}},
    "train": {"steps": 4, "rows": 2, "optimizer": {"betas": [0.9, 0.95], "rules": {"norms": {"pattern": "*.norm.*"}}}},
    "runtime": {"accelerator": "cpu", "threads": 1},
}
"""A recipe that passes every check."""

VALUES: tuple[str, ...] = (
    *("0", "1", "-1", "2", "7", "64", "1e3", "1e-5", "0.5", "-0.0", "1.0", "1e26", "99999999999999999999999999"),
    *("1e308", "1e400"),
    *("1e-400", ".inf", "-.inf", ".nan", "true", "null", "~", "''", "'1'", "many", "on", "0x10", "0o17", "017"),
    *("1_000", "12:30", "2020-01-01", "[]", "{}", "[1]", "[a, b]", "{a: 1}", "{1: 2}", "{? [a] : b}", "???", "'???'"),
    *("${seed}", "${oc.env:MIO_FUZZ_SECRET}", "a${oc.env:HOME}b", "${nope}", "${train}", "${", "\\${seed}", "'${.x}'"),
    *('"\\0"', '"\\x1b[31m"', '"\\ud800"', '"\\ud83d\\ude00"', "'[bold]x'", "'../x'", "'/etc/passwd'", "é"),
    "'" + "x" * 300 + "'",
    *("!!python/object/apply:os.system ['touch canary']", "!!python/name:os.system", "!!binary aGk=", "!!set {a, b}"),
    *("!!timestamp 2020-01-01", "!!int '3'", "!!str 3", "!!float 3", "!local x", "*anchor", "&a [*a]", "9" * 5000),
    *("[" * 100 + "]" * 100, "{a: " * 80 + "1" + "}" * 80, "adamw", "full", "plain", "chat", "rows", "@x", "`x`", "%x"),
)  # fmt: skip
"""YAML of values, most of them wrong nearly everywhere."""

_KEYS = re.compile(r"^\| `([^`]+)` \| .* \| ?(.*?) ?\|$", re.MULTILINE)
RANGES = dict(
    _KEYS.findall((Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8").split("## Keys")[1])
)
"""What the documentation allows: key -> range, empty where there is none."""

Result = tuple[bool, str]
"""Whether it was accepted, and what is wrong with that."""


def leaves(section: type = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of single values with their defaults; names and lists are left out, `model` is taken apart."""
    for one in fields(section):
        key = prefix + one.name
        default = one.default if one.default_factory is one.default else None
        if key == "model":
            yield from leaves(TransformerConfig, "model.")
        elif isinstance(one.default_factory, type) and is_dataclass(one.default_factory):
            yield from leaves(one.default_factory, f"{key}.")
        elif isinstance(default if default is not None else one.default, bool | int | float | str):
            yield key, one.default


LEAVES = dict(leaves())


def allowed(key: str, value: Any) -> bool | None:
    """Whether the documentation lets a key have a value; None where other keys decide too."""
    default, bounds = LEAVES[key], RANGES[key]
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int if isinstance(default, int) else int | float):
            return False
        low, high = re.fullmatch(r"(?:above )?(\S+) to (?:below )?(\S+)", bounds).groups()  # type: ignore[union-attr]
        inside = float(low.replace(",", "")) <= value <= float(high.replace(",", ""))
        return None if inside and math.isfinite(value) else False
    if not isinstance(value, str):
        return False
    words = re.findall(r"`(\w+)`", bounds)
    return None if not words or value in words or (value == "" and "empty" in bounds) else False


def as_yaml(content: Any, put: Mapping[tuple[str, ...], str], key: tuple[str, ...] = ()) -> str:
    """Content as YAML's flow form, with the text of `put` where values of these keys are."""
    if key in put:
        return put[key]
    if isinstance(content, Mapping):
        inner = [f"{json.dumps(name)}: {as_yaml(item, put, (*key, name))}" for name, item in content.items()]
        return "{" + ", ".join(inner) + "}"
    if isinstance(content, list):
        return "[" + ", ".join(as_yaml(item, put, (*key, str(i))) for i, item in enumerate(content)) + "]"
    return json.dumps(content)


def with_key(content: Mapping[str, Any], key: tuple[str, ...]) -> dict[str, Any]:
    """A copy in which a key is there."""
    copied = dict(content)
    inner = copied.get(key[0])
    copied[key[0]] = with_key(inner if isinstance(inner, Mapping) else {}, key[1:]) if key[1:] else inner
    return copied


def checked(path: Path, overrides: list[str], manager: PluginManager) -> Recipe:
    """All that happens to a recipe before something is trained."""
    recipe = compose([str(path)], overrides, manager)
    check(recipe, manager.enable(recipe.plugins))
    transformer_config(recipe, manager)
    assert load_resolved_text(path.with_suffix(".resolved"), to_yaml(recipe)) == recipe
    fingerprint(recipe)
    return recipe


def load_resolved_text(path: Path, text: str) -> Recipe:
    """What a run folder would give back."""
    path.write_text(text, encoding="utf-8")
    return load_resolved(path)


def _judged(key: str, text: str, run: Callable[[], Recipe]) -> Result:
    """A value for one key: refused where it must be, and what the file says where it was not."""
    try:
        wanted = yaml12.read(f"x: {text}")["x"]
    except (yaml12.Unreadable, KeyError, TypeError):
        wanted = yaml12.Unreadable
    recipe = run()
    found: Any = recipe
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else getattr(found, name)
    plain = not (isinstance(wanted, str) and ("$" in wanted or "???" in wanted))
    if wanted is yaml12.Unreadable:
        return True, f"{key}: {text!r:.80} is no YAML and was read as {found!r}"
    if plain and key in LEAVES and allowed(key, wanted) is False:
        return True, f"{key}: {text!r:.80} was read as {found!r}"
    if wanted == "???" or (isinstance(wanted, str) and "oc.env" in wanted):
        return True, f"{key}: {text!r:.80} was read as {found!r}"
    if plain and found != wanted and not (key == "name" and wanted == ""):
        return True, f"{key}: {text!r:.80} was read as {found!r}, not {wanted!r}"
    return True, ""


def value_in_file(random: Random, folder: Path, manager: PluginManager) -> Result:
    """One strange value at one key of a recipe."""
    key = random.choice(sorted(LEAVES))
    text = random.choice(VALUES)
    names = tuple(key.split("."))
    path = folder / "base.yaml"
    path.write_text(as_yaml(with_key(BASE, names), {names: text}), encoding="utf-8")
    return _judged(key, text, lambda: checked(path, [], manager))


def value_in_override(random: Random, folder: Path, manager: PluginManager) -> Result:
    """The same as `key=value`."""
    key = random.choice(sorted(LEAVES))
    text = random.choice(VALUES)
    path = folder / "base.yaml"
    path.write_text(as_yaml(BASE, {}), encoding="utf-8")
    return _judged(key, text, lambda: checked(path, [f"{key}={text}"], manager))


def anywhere(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A strange value, a missing part or an unknown key at any place of a recipe."""
    places = list(_places(BASE))
    key, value = random.choice(places)
    path = folder / "base.yaml"
    if random.random() < 0.3:
        parents = [(place, item) for place, item in places if isinstance(item, Mapping)]
        key, value = random.choice(parents)
        free = ("plugins" in key[:1] and len(key) < 2) or "options" in key or "ratios" in key or key[-1:] == ("groups",)
        content = {**value, "zzyzx": 1}
        path.write_text(as_yaml(BASE, {key: as_yaml(content, {})}), encoding="utf-8")
        checked(path, [], manager)
        return True, "" if free else f"unknown key zzyzx under {'.'.join(key)} was accepted"
    path.write_text(as_yaml(BASE, {key: random.choice(VALUES)}), encoding="utf-8")
    checked(path, [], manager)
    return True, ""


def _places(content: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield key, content
    items = content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    for name, item in items:
        yield from _places(item, (*key, str(name)))


def mutated_text(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A recipe's text with some of it torn out, doubled, or replaced by other characters."""
    import yaml

    text = yaml.safe_dump(BASE, sort_keys=False) if random.random() < 0.5 else as_yaml(BASE, {})
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(text) + 1), random.choice((0, 1, 2, 5, 20))
        new = random.choice(("", *VALUES, *"{}[]:,&*!|>'\"%@`#?-\n\t\r\0\x85\u2028\ufeff", "\n  ", ": ", "- ", "<<: "))
        text = text[:at] + new + text[at + length :]
    path = folder / "base.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    data, _ = parse_yaml(text, "text")
    try:
        wanted = yaml12.read(text)
    except yaml12.Unreadable:
        wanted = data  # not all that is YAML is read by the other program
    wrong = "" if yaml12.same(data, wanted) else f"{text!r} was read as {data!r}, not {wanted!r}"
    checked(path, [], manager)
    return True, wrong


def references(random: Random, folder: Path, manager: PluginManager) -> Result:
    """Free options that refer to each other, also in circles and in doublings, against a small evaluator."""
    names = [f"k{index}" for index in range(random.choice((2, 4, 8, 40)))]
    said: dict[str, str] = {}
    for index, name in enumerate(names):
        others = names if random.random() < 0.1 else names[:index]
        count = random.choice((0, 1, 2, 2)) if others else 0
        said[name] = "-".join(f"${{plugins.text.{random.choice(others)}}}" for _ in range(count)) or f"v{index}"
    path = folder / "base.yaml"
    path.write_text(json.dumps({"name": "base", "plugins": {"text": said}}), encoding="utf-8")
    found = compose([str(path)], [], manager).plugins["text"]

    def value(name: str, above: tuple[str, ...] = ()) -> str:
        if name in above:
            raise UserError("a circle")
        return re.sub(r"\$\{plugins\.text\.(\w+)\}", lambda other: value(other[1], (*above, name)), said[name])

    if sum(text.count("$") for text in said.values()) > 24:
        return True, ""  # the small evaluator would take too long
    wanted = {name: value(name) for name in names}
    return True, "" if found == wanted else f"{said} was read as {found}"


def inclusions(random: Random, folder: Path, manager: PluginManager) -> Result:
    """Files that include each other, also in circles and twice: the last one that says something wins."""
    count = random.randint(2, 12)
    included = {
        index: [random.randrange(count if random.random() < 0.05 else index or 1) for _ in range(random.randint(0, 2))]
        for index in range(count)
    }
    included[0] = [] if random.random() < 0.9 else [0]
    for index, others in included.items():
        content = {"include": [f"f{other}.yaml" for other in others], "plugins": {"p": {f"k{index % 3}": index}}}
        (folder / f"f{index}.yaml").write_text(json.dumps(content), encoding="utf-8")

    def order(index: int, above: tuple[int, ...] = ()) -> list[int]:
        if index in above:
            raise UserError("a circle")
        return [*(one for other in included[index] for one in order(other, (*above, index))), index]

    found = compose([str(folder / f"f{count - 1}.yaml")], [], manager).plugins["p"]
    try:
        wanted = {f"k{index % 3}": index for index in order(count - 1)}
    except UserError:
        return True, f"a circle of includes was accepted: {included}"
    return True, "" if found == wanted else f"{included} gave {found}, not {wanted}"
