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
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
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
    except UnicodeDecodeError as error:
        raise InvalidOption(f"--config: {str(path)!r} is not UTF-8: {error.reason}.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidOption(f"--config: {str(path)!r} is not valid YAML: {reason}.") from error
    if not isinstance(values, dict):
        raise InvalidOption(f"--config: {str(path)!r} must have one `option: value` a line.")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    given = _known_values(config_type, values, f"--config: {str(path)!r}", without=("config",))
    missing = {
        each.name: tyro.MISSING
        for each in dataclasses.fields(config_type)  # type: ignore[arg-type]
        if not _has_default(each)
    }
    return config_type(**(missing | given))


def _known_values(
    config_type: Any,  # noqa: ANN401
    values: dict[str, Any],
    place: str,
    *,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what a mapping gives, as the fields of a dataclass want it.

    Raises:
        InvalidOption: A key is not known or stands twice, or a value cannot be used.
    """
    hints = typing.get_type_hints(config_type)
    fields = [each.name for each in dataclasses.fields(config_type) if each.name not in without]
    names = _aliases(config_type) | {name: name for name in fields}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InvalidOption(f"{place} has the unknown option {key!r}.{hint}")
        name = names[key]
        if name in given:
            raise InvalidOption(f"{place} has {name!r} in two spellings: give one.")
        given[name] = _typed(value, hints[name], f"{place}, {name}")
    return given


def _aliases(config_type: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the further spellings that the flags of some fields have, as keys, to the fields."""
    hints = typing.get_type_hints(config_type, include_extras=True)
    return {
        alias.removeprefix("--"): name
        for name, hint in hints.items()
        for note in getattr(hint, "__metadata__", ())
        for alias in getattr(note, "aliases", None) or ()
    }


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
    if dataclasses.is_dataclass(hint):
        return _entry(value, hint, place)
    if type(value) is not hint:
        raise InvalidOption(f"{place}: {value!r} is not of the type {hint.__name__}.")
    return value


def _entry(value: Any, hint: Any, place: str) -> Any:  # noqa: ANN401
    """Return one entry of a list, which has all the keys of a dataclass.

    Raises:
        InvalidOption: It has not.
    """
    names = [each.name for each in dataclasses.fields(hint)]
    if not isinstance(value, dict):
        raise InvalidOption(f"{place}: {value!r} must have the keys {', '.join(names)}.")
    given = _known_values(hint, {str(key): each for key, each in value.items()}, place)
    missing = [name for name in names if name not in given]
    if missing:
        raise InvalidOption(f"{place}: {missing[0]} is missing in {value!r}.")
    return hint(**given)
