"""From a command line, and perhaps a YAML file, to a configuration."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from asyncval.core.errors import InvalidOption

C = TypeVar("C")


def parse(config_type: type[C], arguments: Sequence[str], *, command: str) -> C:
    """Return the options of one command.

    Args:
        config_type: The dataclass that says which there are.
        arguments: The command line behind the command's name.
        command: The command, for the usage line.

    Raises:
        InvalidOption: The configuration file cannot be used.
        SystemExit: With code 2 after a usage message, or 0 after `--help`.
    """
    path = _config_file(arguments)
    default = _from_file(config_type, path) if path else tyro.MISSING_NONPROP
    return tyro.cli(
        config_type,
        prog=f"asyncval {command}",
        args=list(arguments),
        default=default,
        use_underscores=True,
        console_outputs=True,
        config=(tyro.conf.HelptextFromCommentsOff,),
    )


def as_yaml(config: Any) -> str:  # noqa: ANN401
    """Return a configuration as the YAML that `--config` reads."""
    values = {
        each.name: _plain(getattr(config, each.name))
        for each in dataclasses.fields(config)
        if each.name != "config"
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _config_file(arguments: Sequence[str]) -> Path | None:
    for place, argument in enumerate(arguments):
        if argument == "--config" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
    return None


def _from_file(config_type: type[C], path: Path) -> C:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidOption(f"--config: {str(path)!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidOption(f"--config: {str(path)!r} is not valid YAML: {reason}.") from error
    if not isinstance(values, dict):
        raise InvalidOption(f"--config: {str(path)!r} must have one `option: value` a line.")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    fields = {each.name: each for each in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(config_type)
    for key in values:
        if key not in fields or key == "config":
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidOption(f"--config: {str(path)!r} has the unknown option {key!r}.{hint}")
    given: dict[str, Any] = {
        name: _typed(values[name], hints[name], f"--config: {str(path)!r}, {name}")
        if name in values
        else tyro.MISSING
        for name, each in fields.items()
        if name in values or not _has_default(each)
    }
    return config_type(**given)


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


def _typed(value: Any, hint: Any, place: str) -> Any:  # noqa: ANN401
    """Return a YAML value as the field's type wants it.

    Raises:
        InvalidOption: It cannot be one.
    """
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _typed(value, next(each for each in choices if each is not type(None)), place)
    if origin is tuple:
        return tuple(
            _typed(each, choices[0], place)
            for each in (value if isinstance(value, list) else [value])
        )
    if origin is typing.Literal:
        if value not in choices:
            raise InvalidOption(f"{place}: {value!r} is none of {', '.join(map(str, choices))}.")
        return value
    if (hint is Path or hint is str) and type(value) in (str, int, float):  # `no` is a bool
        return hint(str(value))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InvalidOption(f"{place}: {value!r} is not of the type {hint.__name__}.")
    return value
