#!/usr/bin/env python3
"""Writes the parts of the client that are not written by hand.

`types.py` is made from the server's OpenAPI document (`docs/openapi.json`, which is what the server
answers at `/openapi.json`), so that a field that changes there is a type error here. `_sync.py` is made
from `_async.py`: the blocking client is the other one without `await`, and two copies kept alike by
hand would not stay alike. Only the standard library is used, so that anybody can run it:

    python generate.py            # writes both
    python generate.py --check    # exit code 1 when one of them is not what it would write
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "docs" / "openapi.json"
PACKAGE = HERE / "src" / "chargehand"

Schema = Dict[str, Any]
WIDTH = 96


def pascal(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", text))


def prose(text: str) -> str:
    """A description without what only readers of the Rust source understand."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"\[(`[^`]*`)\](\([^)]*\))?", r"\1", text)
    text = re.sub(r"`(?:\w+::)+(\w+)`", r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip()


def wrap(text: str, indent: str) -> List[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(indent) + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [indent + line for line in [*lines, line]]


def docstring(text: str, indent: str) -> List[str]:
    text = prose(text).replace("\\", "\\\\").replace('"""', "'''")
    if not text:
        return []
    if text.endswith('"'):
        text += " "
    if len(indent) + len(text) + 6 <= WIDTH:
        return [f'{indent}"""{text}"""']
    first, *rest = wrap('"""' + text, indent)
    return [first, *rest, f'{indent}"""']


def said(schema: Schema) -> str:
    """What is said of a field, which for one that may be null stands with the other choice."""
    choices = schema.get("oneOf", [])
    inner = choices[0].get("description", "") if {"type": "null"} in choices else ""
    return str(schema.get("description") or inner)


class Types:
    """Everything that `types.py` defines, in the order of the document."""

    def __init__(self, components: Dict[str, Schema]) -> None:
        self.components = components
        self.out: List[str] = []
        self.names: List[str] = []
        self.whole = {json.dumps(s, sort_keys=True): n for n, s in components.items()}

    # --- references to types -------------------------------------------------------------------

    def of(self, schema: Schema, name: str) -> str:
        """The type of a value; what has no name of its own in the document is defined as `name`."""
        if "$ref" in schema:
            return pascal(schema["$ref"].rsplit("/", 1)[1])
        known = self.whole.get(json.dumps(schema, sort_keys=True))
        if known and schema.get("type") == "object":
            return pascal(known)
        if "oneOf" in schema or "anyOf" in schema:
            return self.union(schema.get("oneOf") or schema["anyOf"], name)
        if "enum" in schema:
            return "Literal[" + ", ".join(json.dumps(value) for value in schema["enum"]) + "]"
        kinds = schema.get("type")
        if isinstance(kinds, list):
            rest = [kind for kind in kinds if kind != "null"]
            inner = self.of({**schema, "type": rest[0]}, name)
            return f"Optional[{inner}]" if "null" in kinds else inner
        if kinds == "object":
            if "properties" in schema:
                self.typed_dict(name, schema)
                return name
            values = schema.get("additionalProperties")
            inner = self.of(values, name + "Value") if isinstance(values, dict) else "Any"
            return f"Dict[str, {inner}]"
        if kinds == "array":
            if "prefixItems" in schema:
                parts = [self.of(part, f"{name}{n}") for n, part in enumerate(schema["prefixItems"])]
                return f"List[{self.either(parts)}]"
            return f"List[{self.of(schema.get('items') or {}, name + 'Item')}]"
        scalars = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
        if kinds == "null":
            return "None"
        return scalars.get(kinds or "", "Any")

    def either(self, parts: Iterable[str]) -> str:
        parts = list(dict.fromkeys(parts))
        return parts[0] if len(parts) == 1 else "Union[" + ", ".join(parts) + "]"

    def union(self, variants: List[Schema], name: str) -> str:
        if len(variants) == 2 and {"type": "null"} in variants:
            other = next(v for v in variants if v != {"type": "null"})
            return f"Optional[{self.of(other, name)}]"
        return self.either(self.of(v, name + self.variant(v)) for v in variants)

    def variant(self, schema: Schema) -> str:
        """What tells this variant from the others: its constant field, or its only one."""
        properties = schema.get("properties", {})
        for field in properties.values():
            if len(field.get("enum", [])) == 1:
                return pascal(field["enum"][0])
        return pascal(next(iter(properties), ""))

    # --- definitions ---------------------------------------------------------------------------

    def define(self, name: str, schema: Schema) -> None:
        schema = self.merged(schema)
        name = pascal(name)
        if schema.get("type") == "object" and "properties" in schema:
            self.typed_dict(name, schema)
            return
        expression = self.of({**schema, "description": ""}, name)
        self.names.append(name)
        if expression != "Any":
            # Names in quotes: an alias is evaluated at import, when not every class is there yet.
            expression = re.sub(r"(?<![\"\w.])([A-Z]\w+)(?![\"\w\[])", self.quoted, expression)
        lines = wrap(f"{name} = {expression}", "")
        if len(lines) > 1:
            head, inner = expression.split("[", 1)
            parts = split(inner[:-1])
            lines = [f"{name} = {head}[", *(f"    {part}," for part in parts), "]"]
        self.out += [*lines, *docstring(schema.get("description", ""), ""), "", ""]

    def quoted(self, found: "re.Match[str]") -> str:
        word = found.group(1)
        return word if word in ("Any", "None") else f'"{word}"'

    def merged(self, schema: Schema) -> Schema:
        """`allOf` of objects and of a choice of objects, as one object: a dictionary type cannot say
        that exactly one of some fields is there."""
        if "allOf" not in schema:
            return schema
        properties: Dict[str, Schema] = {}
        required: List[str] = []
        for part in schema["allOf"]:
            if "$ref" in part:
                part = self.components[part["$ref"].rsplit("/", 1)[1]]
            properties.update(part.get("properties", {}))
            required += part.get("required", [])
            for variant in part.get("oneOf", []):
                properties.update(variant.get("properties", {}))
        return {
            "type": "object",
            "description": schema.get("description", ""),
            "properties": properties,
            "required": required,
        }

    def typed_dict(self, name: str, schema: Schema) -> None:
        if name in self.names:
            return
        self.names.append(name)
        required = schema.get("required", [])
        # What a field needs is defined before this, so that the classes do not interleave.
        fields = {
            field: (self.of(inner, name + pascal(field)), said(inner))
            for field, inner in schema["properties"].items()
        }
        must = {field: of for field, of in fields.items() if field in required}
        may = {field: of for field, of in fields.items() if field not in required}
        about = schema.get("description", "")
        base = "TypedDict"
        if must and may:
            base = f"_{name}Required"
            self.one(base, "TypedDict", must, "What is always there.", total=True)
        elif must:
            self.one(name, base, must, about, total=True)
            return
        self.one(name, base, may, about, total=False)

    def one(
        self, name: str, base: str, fields: Dict[str, Tuple[str, str]], about: str, total: bool
    ) -> None:
        plain = all(field.isidentifier() and not keyword.iskeyword(field) for field in fields)
        if not plain:
            # A field such as `from` or `task.submitted` can only be named in the other notation.
            written = name if base == "TypedDict" else f"_{name}Optional"
            self.out.append(f"{written} = TypedDict(")
            self.out.append(f'    "{written}",')
            self.out.append("    {")
            for field, (of, text) in fields.items():
                self.out += [f"        # {line}" for line in wrap(prose(text), "")]
                self.out.append(f'        "{field}": {self.strings(of)},')
            self.out.append("    },")
            if not total:
                self.out.append("    total=False,")
            self.out.append(")")
            if base != "TypedDict":
                raise SystemExit(f"{name}: an optional field is not an identifier")
            self.out += [*docstring(about, ""), "", ""]
            return
        ending = "" if total else ", total=False"
        self.out.append(f"class {name}({base}{ending}):")
        self.out += docstring(about, "    ") or []
        for field, (of, text) in fields.items():
            self.out.append("")
            self.out.append(f"    {field}: {of}")
            self.out += docstring(text, "    ")
        self.out += ["", ""]

    def strings(self, of: str) -> str:
        return re.sub(r"(?<![\"\w.])([A-Z]\w+)(?![\"\w\[])", self.quoted, of)


def split(text: str) -> List[str]:
    """Splits at the commas that are outside brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def types(document: Schema) -> str:
    components = document["components"]["schemas"]
    made = Types(components)
    for name, schema in components.items():
        made.define(name, schema)
    events = sorted(
        next(iter(variant["properties"])) for variant in components["Event"]["oneOf"]
    )
    made.out += ["EVENT_TYPES = (", *(f'    "{event}",' for event in events), ")"]
    made.out += ['"""The type of every event that the log can have."""', ""]
    body = "\n".join(made.out)
    used = [n for n in ("Any", "Dict", "List", "Literal", "Optional", "TypedDict", "Union")
            if re.search(rf"\b{n}\b", body)]
    head = [
        '"""What goes over the wire, as the server\'s OpenAPI document describes it.',
        "",
        "Written by `generate.py`; do not edit. Fields that a class of its own calls required are",
        'always there; all the others may be absent."""',
        "",
        "from __future__ import annotations",
        "",
        f"from typing import {', '.join(used)}",
        "",
        "",
    ]
    text = "\n".join(head) + "\n" + body
    return re.sub(r"\n{4,}", "\n\n\n", text).rstrip() + "\n"


# What the blocking client has in the place of what the other one has, in order.
BLOCKING: List[Tuple[str, str]] = [
    (r'^""".*?"""\n', '"""The blocking client. Written by `generate.py` from `_async.py`; do not edit."""\n'),
    (r"^import asyncio\n", "import time\n"),
    (r"await asyncio\.sleep", "time.sleep"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\bhttpx\.Async", "httpx."),
    (r"\bAsync(?=[A-Z])", ""),
]


def blocking(text: str) -> str:
    for pattern, instead in BLOCKING:
        text = re.sub(pattern, instead, text, flags=re.M | (re.S if '"""' in pattern else 0))
    return text


def outputs(document: Optional[Path] = None) -> Dict[Path, str]:
    """What the generated files are to hold."""
    read = json.loads((document or DOCUMENT).read_text(encoding="utf-8"))
    return {
        PACKAGE / "types.py": types(read),
        PACKAGE / "_sync.py": blocking((PACKAGE / "_async.py").read_text(encoding="utf-8")),
    }


def main() -> int:
    stale = False
    for path, text in outputs().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if "--check" in sys.argv:
            print(f"{path.name} is not what generate.py writes", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return int(stale and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
