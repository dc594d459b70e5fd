"""Command lines, run folders, records and prompts that are wrong on purpose."""

from __future__ import annotations

import contextlib
import io
import json
import string
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.recipes import BASE, VALUES, Result, as_yaml
from mio import Modality
from mio.cli import app
from mio.core.contract.plugins import PluginManager
from mio.core.contract.values import Template
from mio.core.data.readers import open_reader
from mio.core.data.readers.records import Kinds
from mio.core.errors import UserError
from mio.core.generation.prompt import parse_prompt
from mio.core.recipe.resolved import load_resolved
from mio.core.tokens.templates import CompiledTemplate, to_document

MODALITIES = {
    "text": Modality(name="text", text=True),
    "image": Modality(name="image", codebooks=(64,), begin="<image>", end="</image>", code_token="<img{}>"),
}
KINDS = Kinds(MODALITIES, lambda: {"image": (".png",)})
STRANGE = (
    *("", "x", "\x1b[31mred", "\x9b31m", "[bold]x[/bold]", "a\nb", "\u202eevil", "é", "x" * 300, "..", "/"),
    *("-1", "inf", "nan", "1e400", "18446744073709551616", "100000000000", "--json", "--", "-h", "=", "a=b=c"),
    *("train.rows=99999999999999999999999999", "zzyzx.unknown=1", "name=" + "n" * 300, "plugins={text: 3}", "~", "*"),
    *("text_tokens=1e17", "text_tokens=100000000000000000", "world=0", "world=-5", "gpu=x", "runtime.devices=0"),
)  # fmt: skip
TEMPLATES = (
    Template(direction="d", response="{text}"),
    Template(direction="d", prompt="{image}", response="{caption}"),
    None,
)
PIECES = (
    *("hello", "{image:x.png}", "{image:}", "{", "}", "{nope:x}", "{image:" + "x" * 400 + "}", "\x1b", "\0", "é"),
    *("{image:\0}", "{{image:a}}", "\ud800"),
)
COMMANDS = (
    ["recipe", "show"], ["recipe", "check"], ["recipe", "diff"], ["recipe", "lock"], ["recipe", "verify"],
    ["fit"], ["tokenize"], ["plan"], ["generate"], ["evaluate"], ["export"], ["import"], ["plugins", "check"],
    ["plugins", "new"], ["plugins"], ["recipe"], [],
)  # fmt: skip


def command(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A command with strange arguments: done, or one line and exit code 2; for a group alone its help."""
    del manager
    (folder / "base.yaml").write_text(as_yaml(BASE, {}), encoding="utf-8")
    words = list(random.choice(COMMANDS))
    if words[-1:] in (["fit"], ["tokenize"], ["plan"]) or random.random() < 0.5:
        # what would be carried out is refused for this, whatever stands beside it
        words += ["base.yaml", "zzyzx.unknown=1"]
    words += [random.choice(STRANGE) for _ in range(random.randint(0, 3))]
    if random.random() < 0.3:
        option = random.choice(("--out", "--json", "--seed", "--temperature", "--items", "--dir", "--plugin", "--nope"))
        words += [option, random.choice(STRANGE)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run(words)
    if any(character in "\x1b\x9b\u202e" for character in out.getvalue() + err.getvalue()):
        return True, f"mio {words}: control characters were printed"
    if code == 2 and words in ([], ["plugins"], ["recipe"]) and "Usage:" in out.getvalue():
        return False, ""
    if code == 2 and len([line for line in err.getvalue().splitlines() if line.startswith("error: ")]) != 1:
        return True, f"mio {words}: exit code 2 without one line: {err.getvalue()!r}"
    return (True, f"mio {words}: exit code {code}") if code not in (0, 2) else (code == 0, "")


def run_folder(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A resolved recipe with bytes cut, changed or added."""
    from fuzzing.recipes import checked
    from mio.core.recipe.resolved import to_yaml

    path = folder / "base.yaml"
    path.write_text(as_yaml(BASE, {}), encoding="utf-8")
    recipe = checked(path, [], manager)
    content = bytearray(to_yaml(recipe).encode())
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(content))
        kind = random.randrange(3)
        if kind == 0:
            del content[at : at + random.choice((1, 4, 50, 10_000))]
        elif kind == 1:
            content[at : at + 1] = bytes([random.randrange(256)])
        else:
            content[at:at] = random.choice(VALUES).encode()
        content = content or bytearray(b"a")
    resolved = folder / "recipe.yaml"
    resolved.write_bytes(bytes(content))
    load_resolved(resolved)
    return True, ""


def _json_value(random: Random, depth: int = 0) -> Any:
    kind = random.randrange(14 if depth < 4 else 10)
    if kind < 4:
        return "".join(
            random.choice(string.printable + "é\u2028\ud800\x1b{}<>|$\0") for _ in range(random.randrange(12))
        )
    if kind < 10:
        odd = (
            None,
            True,
            0,
            -1,
            1e30,
            10**400,
            1e-320,
            "<image>",
            "<img5>",
            "<img99999999999999999999>",
            "a.png",
            "..",
        )
        return random.choice((*odd, float("nan"), float("inf"), "\ud800", "\0", "/etc/passwd", [], {}, ""))
    if kind < 12:
        return [_json_value(random, depth + 1) for _ in range(random.randrange(4))]
    names = ("type", "text", "image", "role", "content", "from", "value", "bytes", "path", "weight", "codes", "caption")
    return {random.choice(names): _json_value(random, depth + 1) for _ in range(random.randrange(4))}


def record(random: Random, folder: Path, manager: PluginManager) -> Result:
    """A line of JSON that becomes a record and a document, or costs its record with a reason."""
    del manager
    names = ("text", "caption", "image", "messages", "parts", "images", "conversations", "id")
    row = {random.choice(names): _json_value(random) for _ in range(random.randint(0, 4))}
    line = json.dumps(row, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.3:
        at = random.randrange(len(line) + 1)
        line = line[:at] + random.choice((b"", b"\xff", b"[" * 3000, b"}", b"9" * 6000, b"\0", b'"')) + line[at + 1 :]
    path = folder / "rows.jsonl"
    path.write_bytes(line + b"\n")
    source = open_reader("jsonl", "train", {"path": str(path)}, KINDS)
    made = source[0]
    accepted, wrong = False, ""
    text = made.get("text")
    for template in TEMPLATES:
        compiled = CompiledTemplate(template, "own") if template else None
        for form in ("plain", "chat"):
            try:
                document = to_document(made, compiled, form, {})
            except UserError:
                continue
            accepted = True
            if template and template.response == "{text}" and form == "plain" and isinstance(text, str):
                said = "".join(piece.content for piece in document.segments if isinstance(piece.content, str))
                wrong = wrong or ("" if said == text else f"{text!r} became {said!r}")
    return accepted, wrong


def prompt(random: Random, folder: Path, manager: PluginManager) -> Result:
    """Prompts with braces, names and paths of all kinds; text without braces stays what it is."""
    del manager, folder
    text = "".join(random.choice(PIECES) for _ in range(random.randrange(5)))
    values = parse_prompt(text, MODALITIES)
    if "{" not in text and values != [text]:
        return True, f"{text!r} became {values!r}"
    return True, ""
