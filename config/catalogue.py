"""A catalogue file, written by people in YAML -> the document that is published (engine/catalog.py).

Every fault is found in one go, and cites file, line and key. All scalars are read as the text that stands in the file,
so `amount: 0.15` is exactly 0.15 and never passes through a float. Aliases, anchors and tags are refused: a catalogue
says what it says, and a small file cannot unfold into a large one.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, inspect
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from engine.catalog import BadCatalogue, CatalogueDocument, compile_catalogue

FILE_BYTES_MAX: Final = 1 << 20  # ten thousand prices; a larger one is a mistake, and would be slow to read
DEPTH_MAX: Final = 12  # the deepest key of a catalogue lies at 6

KeyPath = tuple[str | int, ...]


class Fault(Struct, frozen=True):
    """What is wrong, where, and what to do about it. `line` counts from 1; 0 is the file as a whole."""

    file: str
    line: int
    path: str  # keys from the root, joined by dots
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class CatalogueFileError(ValueError):
    """The file is no catalogue; `faults` holds every fault, in the order of the file, and str() a line for each."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def load_file(path: Path) -> CatalogueDocument:
    """The catalogue in a file. Raises CatalogueFileError."""
    try:
        with path.open("rb") as source:
            body = source.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CatalogueFileError([Fault(str(path), 0, "", f"cannot be read: {error.strerror}")]) from error
    return load_text(body, str(path))


def load_text(body: bytes, file: str) -> CatalogueDocument:
    """The catalogue in the bytes of a file; `file` is what faults cite. Raises CatalogueFileError."""
    reader = _Reader(file)
    document = reader.document(body)
    if reader.faults or document is None:
        raise CatalogueFileError(sorted(reader.faults, key=lambda fault: fault.line))
    return document


# ------------------------------------------------------------------------------------------------- the file as a tree


class _Scalar(Struct, frozen=True):
    line: int
    text: str
    plain: bool  # written without quotes


class _Sequence(Struct, frozen=True):
    line: int
    items: list["_Node"]


class _Mapping(Struct, frozen=True):
    line: int
    items: list[tuple[_Scalar, "_Node"]]


_Node = _Scalar | _Sequence | _Mapping

_NOT_TEXT: Final = frozenset({"", "~", "null", "true", "false"})  # what YAML 1.2 reads as something else than text
_NUMBER_STARTS: Final = tuple("0123456789+-.")


class _Reader:
    """One file's way to a document. Faults are collected, not raised."""

    def __init__(self, file: str) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._lines: dict[KeyPath, int] = {(): 1}
        self._broken: list[KeyPath] = []  # what the text does not say; the laws cannot be judged around it

    def document(self, body: bytes) -> CatalogueDocument | None:
        try:
            root = self._tree(body)
        except CatalogueFileError as error:
            self.faults += error.faults
            return None
        value = self._struct(inspect.type_info(CatalogueDocument), root, ())
        document = msgspec.convert(value, CatalogueDocument)
        try:
            compile_catalogue(1, document)
        except BadCatalogue as error:
            for fault in error.faults:
                if not self._follows_from_another(fault.path):
                    self._fault(fault.path, fault.message)
        return document

    def _fault(self, path: KeyPath, message: str, line: int | None = None) -> None:
        known = path
        while line is None:
            line = self._lines.get(known)
            known = known[:-1]
        self.faults.append(Fault(self._file, line, ".".join(map(str, path)), message))

    def _break(self, path: KeyPath, message: str) -> None:
        self._broken.append(path)
        self._fault(path, message)

    def _follows_from_another(self, path: KeyPath) -> bool:
        """A law broken beside an unreadable key, or where a plan refers to unreadable meters, is not news."""
        refers = path[2:] == ("prices",) or "where" in path or path[-1] == "meter"
        for broken in self._broken:
            around = broken[:-1]
            if path[: len(around)] == around or around[: len(path)] == path:
                return True
            if broken[0] == "meters" and path[0] == "plans" and refers:
                return True
        return False

    # ---------------------------------------------------------------------------------------------------- YAML -> tree

    def _refuse(self, line: int, message: str) -> CatalogueFileError:
        return CatalogueFileError([Fault(self._file, line, "", message)])

    def _tree(self, body: bytes) -> _Node:
        if len(body) > FILE_BYTES_MAX:
            raise self._refuse(0, f"is larger than {FILE_BYTES_MAX} bytes")
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = body.count(b"\n", 0, error.start) + 1
            raise self._refuse(line, "is not UTF-8") from error
        return self._root(self._events(text))

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from YAML(typ="rt", pure=True).parse(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = error.problem or error.context or "cannot be read"
            raise self._refuse(mark.line + 1 if mark else 0, f"is not YAML: {reason}") from error
        except Exception as error:  # the parser answers some broken escapes with errors that are not its own
            raise self._refuse(0, f"is not YAML: {' '.join(str(error).split())[:200]}") from error

    def _root(self, events: Iterator[Any]) -> _Node:
        documents = 0
        root: _Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event.start_mark.line + 1, "holds a second document; one file is one catalogue")
            elif isinstance(event, MappingStartEvent | SequenceStartEvent | ScalarEvent | AliasEvent):
                root = self._node(event, events, 1)
        if root is None:
            raise self._refuse(0, "is empty; a catalogue has `meters` and `plans`")
        return root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent) or event.anchor is not None:
            raise self._refuse(line, "anchors (&) and aliases (*) are not allowed: write it out")
        if event.ctag is not None and event.ctag.trval is not None:
            raise self._refuse(line, "tags (!) are not allowed: every value here is text")
        if depth > DEPTH_MAX:
            raise self._refuse(line, f"is nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, ScalarEvent):
            if not _is_unicode(event.value):
                raise self._refuse(line, "holds half of a surrogate pair, which is no character")
            return _Scalar(line, event.value, plain=not event.style)
        if isinstance(event, SequenceStartEvent):
            return _Sequence(line, list(self._nodes(events, depth)))
        items = []
        nodes = self._nodes(events, depth)
        for key in nodes:
            if not isinstance(key, _Scalar):
                raise self._refuse(key.line, "a key must be text")
            items.append((key, next(nodes)))
        return _Mapping(line, items)

    def _nodes(self, events: Iterator[Any], depth: int) -> Iterator[_Node]:
        for event in events:
            if isinstance(event, CollectionEndEvent):
                return
            yield self._node(event, events, depth + 1)

    # ------------------------------------------------------------------------------------------ tree -> plain values

    def _value(self, kind: inspect.Type, node: _Node, path: KeyPath) -> Any:
        match kind:
            case inspect.StructType():
                return self._struct(kind, node, path)
            case inspect.DictType():
                items = self._items(node, path)
                return {key: self._value(kind.value_type, item, (*path, key)) for key, item in items.items()}
            case inspect.VarTupleType():
                return self._sequence(kind, node, path)
            case inspect.LiteralType():
                return self._one_of([str(value) for value in kind.values], node, path)
            case inspect.UnionType() if any(isinstance(one, inspect.BoolType) for one in kind.types):
                text = any(isinstance(one, inspect.StrType) for one in kind.types)
                return self._truth_or_text(node, path) if text else self._truth(node, path)
            case inspect.UnionType() if any(isinstance(one, inspect.IntType) for one in kind.types):
                return self._whole(node, path)
            case inspect.UnionType():  # text or absent
                return self._text(node, path)
            case inspect.StrType():
                return self._text(node, path)
            case inspect.BoolType():
                return self._truth(node, path)
            case inspect.IntType():
                return self._whole(node, path)
        raise AssertionError(f"{'.'.join(map(str, path))}: catalogues hold no {type(kind).__name__}")

    def _struct(self, kind: inspect.Type, node: _Node, path: KeyPath) -> dict[str, Any]:
        assert isinstance(kind, inspect.StructType)
        fields = {field.encode_name: field for field in kind.fields}
        values = {}
        for key, item in self._items(node, path).items():
            if key in fields:
                values[key] = self._value(fields[key].type, item, (*path, key))
            else:
                self._break((*path, key), f"there is no such key{_meant(key, list(fields))}")
        for name, field in fields.items():
            if field.required and name not in values:
                values[name] = _placeholder(field.type)
                if isinstance(node, _Mapping):
                    self._break((*path, name), "is missing")
        return values

    def _items(self, node: _Node, path: KeyPath) -> dict[str, _Node]:
        if not isinstance(node, _Mapping):
            self._break(path, f"must be a mapping (key: value), not {_what(node)}")
            return {}
        items: dict[str, _Node] = {}
        for key, item in node.items:
            here = (*path, key.text)
            if key.text in items:
                self._fault(here, f"is there twice; the first one stands in line {self._lines[here]}", key.line)
                continue
            self._lines[here] = key.line
            items[key.text] = item
        return items

    def _sequence(self, kind: inspect.VarTupleType, node: _Node, path: KeyPath) -> list[Any]:
        if not isinstance(node, _Sequence):
            self._break(path, f"must be a list (- item), not {_what(node)}")
            return []
        values = []
        for index, item in enumerate(node.items):
            self._lines[*path, index] = item.line
            values.append(self._value(kind.item_type, item, (*path, index)))
        return values

    def _text(self, node: _Node, path: KeyPath) -> str:
        if not isinstance(node, _Scalar):
            self._break(path, f"must be text or a number, not {_what(node)}")
            return ""
        if node.plain and node.text.lower() in _NOT_TEXT:
            self._break(path, f"is {_what(node)}; quote it if you mean that text")
        return node.text

    def _whole(self, node: _Node, path: KeyPath) -> int:
        text = self._text(node, path)
        if re.fullmatch(r"-?[0-9]{1,18}", text) is None:
            self._break(path, "must be a whole number")
            return 0
        return int(text)

    def _truth(self, node: _Node, path: KeyPath) -> bool:
        return self._one_of(["true", "false"], node, path) == "true"

    def _truth_or_text(self, node: _Node, path: KeyPath) -> bool | str:
        if isinstance(node, _Scalar) and node.plain and node.text in ("true", "false"):
            return node.text == "true"
        return self._text(node, path)

    def _one_of(self, choices: list[str], node: _Node, path: KeyPath) -> str:
        if isinstance(node, _Scalar) and node.text in choices:
            return node.text
        found = _meant(node.text, choices) if isinstance(node, _Scalar) else f", not {_what(node)}"
        self._break(path, f"must be {' or '.join(choices)}{found}")
        return choices[0]


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _what(node: _Node) -> str:
    match node:
        case _Mapping():
            return "a mapping"
        case _Sequence():
            return "a list"
        case _Scalar(plain=True, text=text) if text.lower() in ("", "~", "null"):
            return "empty"
        case _Scalar(plain=True, text=text) if text.lower() in ("true", "false"):
            return f"the truth value {text.lower()}"
        case _Scalar(plain=True, text=text) if text.startswith(_NUMBER_STARTS):
            return "a number"
    return "text"


def _placeholder(kind: inspect.Type) -> Any:
    """Something of the right type for a value whose absence has been told, so that reading can go on."""
    match kind:
        case inspect.DictType():
            return {}
        case inspect.LiteralType():
            return kind.values[0]
    return ""


def _meant(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""
