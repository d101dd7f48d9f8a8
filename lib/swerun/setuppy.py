"""What a setup.py says without running it: the values that can be read off its source."""

import ast
import re
from typing import Any, Iterator

NO = object()  # a value that only a run would give
LISTS = (list, tuple, set)
CONVERSIONS = {"list": list, "tuple": list, "set": list, "sorted": list, "frozenset": list}

PYTHON_2 = re.compile(r"^(six\.)?PY2$|version_info(\.major|\[0\])? (== 2|< 3|< \(3,?( 0)?\)|<= \(2, 7\)|== \(2)")  # no task has it


def keywords(source: str) -> dict[str, Any]:
    """The keyword arguments of setup() that can be known: strings, lists, dicts of them; unknown parts are left out of these."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # Python 2
        return {}
    names: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for node in _statements(tree.body):
        _bind(node, names)
        if isinstance(node, ast.Expr | ast.Assign | ast.Return) and isinstance(node.value, ast.Call) and _called(node.value).rpartition(".")[2] == "setup":
            for word in node.value.keywords:
                value = _value(word.value, names)
                if word.arg:
                    found |= {word.arg: value} if value is not NO else {}
                elif isinstance(value, dict):
                    found |= value
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement in the order of the file, those of functions and branches too: which of them run is not known."""
    for node in body:
        yield node
        for name in ("orelse",) if isinstance(node, ast.If) and PYTHON_2.search(ast.unparse(node.test)) else ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, name, ()) or ())
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _bind(node: ast.stmt, names: dict[str, Any]) -> None:
    """What a statement changes: `x = …`, `x += …`, `x["a"] = …`, `x.update(…)`, `x.append(…)`, `x.extend(…)`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value = node.targets[0], _value(node.value, names)
        if isinstance(target, ast.Name) and value is not NO:
            names[target.id] = value
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and isinstance(names.get(target.value.id), dict):
            key = _value(target.slice, names)
            if isinstance(key, str):
                names[target.value.id][key] = [] if value is NO else value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        _bind(ast.Assign([node.target], node.value), names)
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        value = _value(node.value, names)
        if isinstance(names.get(node.target.id), list) and isinstance(value, LISTS):
            names[node.target.id] = [*names[node.target.id], *value]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute) and isinstance(node.value.func.value, ast.Name):
        owner, values = names.get(node.value.func.value.id), [_value(one, names) for one in node.value.args]
        if isinstance(owner, dict) and node.value.func.attr == "update":
            for value in [*values, {word.arg: _value(word.value, names) for word in node.value.keywords if word.arg}]:
                owner.update({k: [] if v is NO else v for k, v in value.items()} if isinstance(value, dict) else {})
        elif isinstance(owner, list) and values and values[0] is not NO:
            owner.extend(values if node.value.func.attr == "append" else values[0] if node.value.func.attr == "extend" and isinstance(values[0], LISTS) else ())


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of an expression; NO where it is not known, and in lists and dicts nothing in the place of what is not."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple() | ast.Set():
            made: list[Any] = []
            for one in node.elts:
                value = _value(one.value if isinstance(one, ast.Starred) else one, names)
                made += value if isinstance(one, ast.Starred) and isinstance(value, LISTS) else [value] if value is not NO else []
            return made
        case ast.Dict():
            found: dict[Any, Any] = {}
            for key, one in zip(node.keys, node.values):
                value = _value(one, names)
                name = _value(key, names) if key else None
                if key is None:
                    found |= value if isinstance(value, dict) else {}
                elif isinstance(name, str):
                    found[name] = [] if value is NO else value  # an extra whose packages are not known is an extra
            return found
        case ast.Name():
            return names.get(node.id, NO)
        case ast.BinOp(op=ast.Add()):
            left, right = _value(node.left, names), _value(node.right, names)
            if isinstance(left, str) and isinstance(right, str):
                return left + right
            if isinstance(left, LISTS) or isinstance(right, LISTS):
                return [*(left if isinstance(left, LISTS) else ()), *(right if isinstance(right, LISTS) else ())]
        case ast.Subscript():
            owner, key = _value(node.value, names), _value(node.slice, names)
            if isinstance(owner, dict) and isinstance(key, str):
                return owner.get(key, NO)
        case ast.IfExp():
            return _value(node.orelse if PYTHON_2.search(ast.unparse(node.test)) else node.body, names)
        case ast.Call(func=ast.Name(id="dict")):
            return {word.arg: value for word in node.keywords if word.arg and (value := _value(word.value, names)) is not NO}
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in CONVERSIONS:
            value = _value(first, names)
            return list(value) if isinstance(value, LISTS) else NO
        case ast.Call(func=ast.Name(id="sum"), args=[first, *_]):
            lists = _value(first, names)
            return [one for part in lists if isinstance(part, LISTS) for one in part] if isinstance(lists, LISTS) else NO
        case ast.Call(func=ast.Attribute(attr="values"), args=[]):
            owner = _value(node.func.value, names)
            return list(owner.values()) if isinstance(owner, dict) else NO
        case ast.Call(func=ast.Attribute(attr="split" | "splitlines"), args=[]):
            text = _value(node.func.value, names)
            return [line.strip() for line in getattr(text, node.func.attr)() if line.strip()] if isinstance(text, str) else NO
    return NO
