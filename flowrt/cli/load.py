"""Finds the flow that a command names: `module:flow`, a Flow or a function that makes one."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from flowrt.contract.errors import ConfigError, FlowrtError
from flowrt.stream import Flow


def load_flow(target: str, params: Mapping[str, str]) -> Flow:
    """Return the flow that `module:name` names; a function is called with `params`.

    The current folder is searched first. `ConfigError` says what was tried and what is there.
    """
    module_name, _, name = target.partition(":")
    module = _import(module_name, target)
    thing = _attribute(module, name)
    if isinstance(thing, Flow):
        if params:
            raise ConfigError(
                f"{target} is a Flow and takes no parameters (given: {', '.join(params)}): "
                "name a function that returns a Flow"
            )
        return thing
    if not callable(thing) or inspect.isclass(thing) or inspect.iscoroutinefunction(thing):
        raise ConfigError(
            f"{target} is {_article(thing)}, neither a Flow nor a plain function that returns one"
        )
    return _call(thing, target, arguments(thing, target, params))


def parse_params(texts: Sequence[str]) -> dict[str, str]:
    """Read `name=value` texts; `ConfigError` for one without a name or with a name given twice."""
    params: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param {text!r} is not of the form name=value")
        if name in params:
            raise ConfigError(f"--param {name} is given twice")
        params[name] = value
    return params


def arguments(
    function: Callable[..., Any], target: str, params: Mapping[str, str]
) -> dict[str, Any]:
    """Return the keyword arguments for a function: each text converted by its annotation.

    `ConfigError`, listing what the function takes, for a name it lacks, one it needs, or a value
    that does not fit.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"the parameters of {target} cannot be read: {error}") from error
    taken = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    unknown = [name for name in params if name not in taken]
    missing = [name for name, p in taken.items() if p.default is p.empty and name not in params]
    if unknown or missing:
        what = "no parameter " if unknown else "a value for "
        verb = "has" if unknown else "needs"
        raise ConfigError(
            f"{target} {verb} {what}{', '.join(map(repr, unknown or missing))}. "
            f"{_listing(taken.values())}"
        )
    return {name: _convert(taken[name], text, target) for name, text in params.items()}


def _convert(parameter: inspect.Parameter, text: str, target: str) -> Any:
    kind = parameter.annotation
    if kind is parameter.empty:
        return text
    try:
        return msgspec.convert(text, kind, strict=False, dec_hook=_path)
    except (msgspec.ValidationError, TypeError) as error:
        if isinstance(error, TypeError) or isinstance(error.__cause__, TypeError):
            raise ConfigError(
                f"parameter {parameter.name!r} of {target} has type {_name(kind)}, which cannot "
                f"be given on the command line: {error}"
            ) from error
        first = error
    try:  # a list or a mapping is given as JSON
        return msgspec.json.decode(text, type=kind, strict=False, dec_hook=_path)
    except msgspec.DecodeError:
        raise ConfigError(
            f"--param {parameter.name}={text} of {target} does not fit {_name(kind)}: {first}"
        ) from first


def _path(kind: type, value: Any) -> Any:
    if isinstance(value, str) and issubclass(kind, Path):
        return kind(value)
    raise TypeError(f"{_name(kind)} is not a type that text can be converted to")


def _import(name: str, target: str) -> ModuleType:
    if name.endswith(".py") or os.sep in name or "/" in name:
        dotted = name.removesuffix(".py").replace(os.sep, "/").strip("./").replace("/", ".")
        flow = target.partition(":")[2] or "flow"
        raise ConfigError(
            f"{target!r} names a file: write the module as Python imports it, {dotted}:{flow}"
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"{target!r} is not of the form module:flow, such as examples.flights:flow"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"module {name} imports {error.name}, which is not installed: {error}"
            ) from error
        raise ConfigError(
            f"there is no module {name!r}: looked for {error.name!r} in {os.getcwd()} and in the "
            f"packages of {sys.prefix}"
        ) from error
    except SystemExit as error:
        raise ConfigError(
            f"module {name} ends the process when it is imported{_place(error)}: put what is a "
            "program in it under if __name__ == '__main__'"
        ) from error
    except Exception as error:
        raise ConfigError(f"module {name} cannot be imported{_place(error)}") from error


def _attribute(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split(".") if name else ():
        found = getattr(found, part, None)
    if name and found is not None:
        return found
    flows = [
        f"{module.__name__}:{key}"
        for key, value in vars(module).items()
        if not key.startswith("_") and _makes_flow(value, module)
    ]
    what = f"has no {name!r}" if name else "is a module: say which flow of it is meant"
    there = f"It has {', '.join(flows)}" if flows else "There is no flow in it"
    raise ConfigError(f"{module.__name__} {what}. {there}")


def _makes_flow(value: Any, module: ModuleType) -> bool:
    if isinstance(value, Flow):
        return True
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    return value.__annotations__.get("return") in (Flow, "Flow", "flowrt.Flow")


def _call(function: Callable[..., Any], target: str, given: Mapping[str, Any]) -> Flow:
    try:
        made = function(**given)
    except FlowrtError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{target}(...) raised{_place(error)}") from error
    if not isinstance(made, Flow):
        raise ConfigError(f"{target}(...) returned {_article(made)}, not a Flow")
    return made


def _place(error: BaseException) -> str:
    """Say where in the user's own code an exception came from, as far as that is known."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    if trace is None:
        return ""
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"


def _listing(parameters: Any) -> str:
    texts = [
        f"{p.name}{'' if p.annotation is p.empty else f': {_name(p.annotation)}'}"
        f"{' (needed)' if p.default is p.empty else f' = {p.default!r}'}"
        for p in parameters
    ]
    return f"It takes: {', '.join(texts)}" if texts else "It takes none"


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _article(thing: object) -> str:
    kind = "module" if inspect.ismodule(thing) else type(thing).__name__
    if inspect.isclass(thing):
        kind = f"class ({thing.__name__})"
    elif inspect.iscoroutinefunction(thing):
        kind = "coroutine function"
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"
