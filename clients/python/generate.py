"""Writes the types of `src/streamgate/protocol.py` from the schemas, which the gateway's own types give.

With `--check` it fails if what is there is not what the schemas give.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCHEMAS = HERE / "../../schemas"
TARGET = HERE / "src/streamgate/protocol.py"

HEAD = '''"""Everything that goes over the wire. Made from schemas/ by generate.py; not to be edited."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, Union

'''


def spell(schema: Any) -> str:
    """A schema as a type."""
    if not isinstance(schema, dict):
        return "Any"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    for choices in ("allOf", "anyOf", "oneOf"):
        if choices in schema:
            members = schema[choices]
            if all("const" in member for member in members):
                return f"Literal[{', '.join(json.dumps(member['const']) for member in members)}]"
            kinds = list(dict.fromkeys(spell(member) for member in members))
            return kinds[0] if len(kinds) == 1 else f"Union[{', '.join(kinds)}]"
    if "const" in schema:
        return f"Literal[{json.dumps(schema['const'])}]"
    if "enum" in schema:
        return f"Literal[{', '.join(json.dumps(word) for word in schema['enum'])}]"
    match schema.get("type"):
        case list() as kinds:
            return f"Union[{', '.join(spell({**schema, 'type': kind}) for kind in kinds)}]"
        case "array":
            return f"list[{spell(schema.get('items'))}]"
        case "object":
            return f"dict[str, {spell(schema.get('additionalProperties'))}]"
        case str() as kind:
            return {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}[kind]
        case _:
            return "Any"


def define(name: str, schema: dict[str, Any]) -> str:
    """A schema under its name."""
    words = " ".join(str(schema.get("description", "")).split()).replace("\\", "\\\\").rstrip('"')
    if "properties" not in schema:
        comment = f"# {words}\n" if words else ""
        return f"{comment}{name}: TypeAlias = {json.dumps(spell(schema))}\n"
    lines = [f"class {name}(TypedDict):", f'    """{words}"""', ""]
    for field, kind in schema["properties"].items():
        spelled = spell(kind)
        if field not in schema.get("required", []):
            spelled = f"NotRequired[{spelled}]"
        lines.append(f"    {field}: {spelled}")
    return "\n".join(lines) + "\n"


def main() -> int:
    openapi, asyncapi = (json.loads((SCHEMAS / f"{name}.json").read_text()) for name in ("openapi", "asyncapi"))
    # What both have is the same.
    schemas = {**openapi["components"]["schemas"], **asyncapi["components"]["schemas"]}
    channel = asyncapi["channels"]["stream"]
    codes = {code["code"]: code["word"] for code in channel["x-close-codes"]}
    constants = [
        f"# The subprotocol that asks for all event types.\nSUBPROTOCOL = {json.dumps(channel['x-subprotocol'])}\n",
        f"# The codes that the gateway closes a socket with.\nCLOSE_CODES = {codes!r}\n",
    ]
    text = HEAD + "\n\n".join([*constants, *(define(name, schemas[name]) for name in sorted(schemas))])
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        print("clients/python/src/streamgate/protocol.py is stale; mend it: python3 clients/python/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
