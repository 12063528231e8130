"""The value of `key=value`: text where the option is text, else YAML.

An option that takes text gets it as it was given: `name=1e3`, `name=on` and `name=2026-01-01` are names.  Only where
null is a value too do `null`, `~` and nothing at all mean it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

_NULL = ("", "~", "null", "Null", "NULL")


def read_value(raw: str, annotation: Any) -> Any:
    """What `raw` means for an option of this type (None: an unknown option).  Raises yaml.YAMLError."""
    if annotation is str:
        return raw or None
    if _is_text(annotation):
        return None if raw.strip() in _NULL else raw
    if not raw:
        return None
    loader = yaml.SafeLoader(raw)
    try:
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, annotation)
    finally:
        loader.dispose()


def section(annotation: Any) -> type[BaseModel] | None:
    """The section that an option of this type is."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _is_text(annotation: Any) -> bool:
    """Whether everything that the type takes is text (or null)."""
    if get_origin(annotation) is Annotated:
        return _is_text(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return all(kind is NoneType or _is_text(kind) for kind in get_args(annotation))
    return annotation is str


def _construct(loader: yaml.SafeLoader, node: yaml.Node, annotation: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        null = node.tag == "tag:yaml.org,2002:null" and annotation is not str
        return node.value if _is_text(annotation) and not null else _number(loader.construct_object(node))
    if isinstance(node, yaml.SequenceNode):
        kinds = _items(annotation)
        return [_construct(loader, item, kinds(k)) for k, item in enumerate(node.value)]
    model = section(annotation)
    fields = {} if model is None else model.model_fields
    made = {}
    for name, item in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is a word", name.start_mark)
        key = loader.construct_object(name)
        made[key] = _construct(loader, item, fields[key].annotation if key in fields else None)
    return made


def _items(annotation: Any) -> Callable[[int], Any]:
    """Position → type of a sequence's item."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) in (tuple, list):
            kinds = get_args(kind)
            return lambda k: kinds[0] if kinds[-1] is Ellipsis or len(kinds) <= k else kinds[k]
    return lambda k: None


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
