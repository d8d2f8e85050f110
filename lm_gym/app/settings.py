"""Settings of a command as words: other names for them, files of them, and printed so that a file takes them again.

Knows: the parameters of a command's function, which are its options. Does not know: what any command does. Files and
other names become options of the command line before it is read, so that one reader checks all of them alike.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
import yaml

from lm_gym.errors import ConfigError
from lm_gym.tools.console.terminal import visible

from .setting_names import FOREIGN, OTHER_NAMES

__all__ = ["ConfigFile", "dumped", "expanded", "read", "with_files"]

OF_FILES = ("config", "print_config")
NOT_IN_FILES = (*OF_FILES, "resume", "overwrite")
"""Options that say what to do now, and settle nothing of what is made."""
Call = Callable[[], Any]
MISSING = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """A file of settings."""

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """YAML file of settings, each under the name of its option; options beside it override it."""
    print_config: bool = False
    """Print all settings as YAML that --config takes, and do nothing else."""


@dataclass(frozen=True, kw_only=True)
class _Setting:
    name: str
    kind: Any
    default: Any = MISSING

    @property
    def is_switch(self) -> bool:
        return self.kind is bool

    @property
    def is_many(self) -> bool:
        return get_origin(self.kind) is tuple

    @property
    def takes_none(self) -> bool:
        return type(None) in get_args(self.kind)

    @property
    def flag(self) -> str:
        return _flag(self.name)


def with_files(function: Callable[..., Any]) -> Callable[..., Call]:
    """Give a command the options --config and --print-config, and have it read its arguments before it does anything.

    Returns: a function of the same options that returns the call they ask for.
    """

    @functools.wraps(function)
    def command(*, file: ConfigFile, **given: Any) -> Call:
        if file.print_config:
            return functools.partial(_print, dumped(function, given))
        return functools.partial(function, **given)

    signature = inspect.signature(function)
    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()]
    kind = Annotated[ConfigFile, tyro.conf.arg(name="")]
    last = inspect.Parameter("file", inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    del command.__wrapped__
    command.__signature__ = signature.replace(parameters=[*own, last])  # type: ignore[attr-defined]
    command.__annotations__ = get_type_hints(function, include_extras=True) | {"file": kind, "return": Call}
    command.settings_of = function  # type: ignore[attr-defined]
    return command


def _print(text: str) -> None:
    sys.stdout.write(text)


def read(parser: Callable[[list[str]], Call], args: Sequence[str]) -> Call:
    """The call that a command line asks for, read by a parser that repeats arguments in its errors as they are.

    What a terminal would obey in them is written out first, and the error told of that.
    """
    written = [visible(one) for one in args]
    if written != list(args):
        parser(written)
    return parser(list(args))


def expanded(args: Sequence[str], commands: Mapping[str, Callable[..., Any]]) -> list[str]:
    """The command line with the options' own names, and with those of the file behind ``--config`` added.

    Args:
        args: of the command line.
        commands: functions by name, "reward train" for one.

    Raises:
        ConfigError: an option that the command does not have; or the file cannot be read, or holds something that is
            no setting of the command.
    """
    words = next((count for count in (2, 1) if " ".join(args[:count]) in commands), 0)
    if words == 0:
        return list(args)
    name = " ".join(args[:words])
    positional = _positional(commands[name])
    settings = {one.name: one for one in _settings(commands[name]) if one.name not in positional}
    rest = [_own_name(token, name, settings) for token in args[words:]]
    _refuse_unknown(rest, name, settings)
    given = {_name(token) for token in rest if token.startswith("--")}
    found = {} if (path := _value_of("--config", rest)) is None else _read(Path(path), name, settings)
    for switch in [one for one in settings.values() if one.is_switch]:
        if (off := f"--no-{switch.flag[2:]}") in rest:  # the only way to override a switch of the file
            rest.remove(off)
            found.pop(switch.name, None)
    added = [token for one, value in found.items() if one not in given for token in _option(settings[one], value, path)]
    if "--print-config" in rest:
        missing = [one for one in settings.values() if one.default is MISSING and one.name not in given | set(found)]
        added += [token for one in missing for token in (one.flag, "")]
    return [*args[:words], *rest, *added]


def dumped(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """All settings of a command as YAML; those that are required and still missing stand there as comments.

    Args:
        function: the command.
        given: its arguments.
    """
    lines = []
    for one in _settings(function):
        if one.name in NOT_IN_FILES or one.name in _positional(function):
            continue
        value = _plain(_found(given, one.name))
        if one.default is MISSING and value in ("", ".", [], ["."]):
            lines.append(f"# {one.name}: required\n")
        else:
            lines.append(yaml.safe_dump({one.name: value}, allow_unicode=True, width=10_000))
    return "".join(lines)


def _settings(function: Callable[..., Any]) -> list[_Setting]:
    """The options of a command: its parameters, and the fields of those that are dataclasses."""
    function = getattr(function, "settings_of", function)
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = _bare(hints[name])
        if not dataclasses.is_dataclass(kind):
            found.append(_Setting(name=name, kind=kind, default=parameter.default))
            continue
        of_fields = get_type_hints(kind, include_extras=True)
        for one in dataclasses.fields(kind):
            default = MISSING if one.default is dataclasses.MISSING else one.default
            found.append(_Setting(name=one.name, kind=_bare(of_fields[one.name]), default=default))
    return found


def _positional(function: Callable[..., Any]) -> set[str]:
    """Names of the arguments that have no option; no file holds them."""
    hints = get_type_hints(getattr(function, "settings_of", function), include_extras=True)
    return {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _found(given: Mapping[str, Any], name: str) -> Any:
    if name in given:
        return given[name]
    return next(getattr(one, name) for one in given.values() if dataclasses.is_dataclass(one) and hasattr(one, name))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _name(token: str) -> str:
    return token.removeprefix("--").partition("=")[0].replace("-", "_")


def _own_name(token: str, command: str, settings: Mapping[str, _Setting]) -> str:
    """The option under its own name, where it was given under another.

    Raises: ConfigError: it is a word of another library that means something else here.
    """
    if not token.startswith("--") or (name := _name(token)) in settings:
        return token
    if (remark := FOREIGN.get(command, {}).get(name)) is not None:
        raise ConfigError(f"{command}: there is no option --{name.replace('_', '-')}: {remark}")
    other = OTHER_NAMES.get(command, {}).get(name)
    return token if other is None else _flag(other) + "".join(token.partition("=")[1:])


def _refuse_unknown(args: Sequence[str], command: str, settings: Mapping[str, _Setting]) -> None:
    """Raises: ConfigError: an option that the command does not have; it names the nearest one."""
    switches = [f"no_{one.name}" for one in settings.values() if one.is_switch]
    known = [*settings, *OF_FILES, *switches, *OTHER_NAMES.get(command, {})]
    for token in args:
        name = _name(token)
        if token.startswith("--") and name and name not in (*known, "help") and not name.startswith("tyro_"):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {_flag(near[0])}?" if near else f"'lm-gym {command} --help' lists those there are"
            raise ConfigError(f"{command}: there is no option {token.partition('=')[0]}; {hint}")


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    found = None
    for token, following in zip(args, [*args, None][1:], strict=True):
        if token == flag:
            found = following
        elif token.startswith(f"{flag}="):
            found = token.partition("=")[2]
    return found


def _read(path: Path, command: str, settings: Mapping[str, _Setting]) -> dict[str, Any]:
    """The settings of a file under their own names."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path}: must be a YAML file, and reading it failed: {error}") from error
    if not isinstance(found, dict):
        kind = "an empty file" if found is None else type(found).__name__
        raise ConfigError(f"--config {path}: must hold settings as 'name: value', got {kind}")
    named: dict[str, Any] = {}
    for key, value in found.items():
        name = _name(_own_name(f"--{key}", command, settings))
        if name in NOT_IN_FILES:
            raise ConfigError(f"--config {path}: {key} belongs on the command line, not in a file; take it out")
        if name not in settings:
            known = [one for one in settings if one not in NOT_IN_FILES]
            near = difflib.get_close_matches(name, [*known, *OTHER_NAMES.get(command, {})], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the settings are {', '.join(sorted(known))}"
            raise ConfigError(f"--config {path}: {command} has no setting {key!r}{hint}")
        if name in named:
            raise ConfigError(f"--config {path}: {name} must be set once, and {key!r} sets it again")
        named[name] = value
    return named


def _option(setting: _Setting, value: Any, path: str | None) -> list[str]:
    """A setting of a file as a user types it.

    Raises: ConfigError: the value is of a kind that no option has.
    """

    def refuse(rule: str) -> ConfigError:
        return ConfigError(f"--config {path}: {setting.name}: must be {rule}, got {value!r}")

    if setting.is_switch:
        if not isinstance(value, bool):
            raise refuse("true or false")
        return [setting.flag] if value else []
    if value is None and setting.takes_none:
        return [f"{setting.flag}=None"]
    values = value if isinstance(value, list) else [] if value is None and setting.is_many else [value]
    if isinstance(value, list) and not setting.is_many:
        raise refuse("one value")
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise refuse("a number or a text (a text such as yes or no in quotes)")
    if setting.is_many:
        return [setting.flag, *map(str, values)]
    return [f"{setting.flag}={value}"]
