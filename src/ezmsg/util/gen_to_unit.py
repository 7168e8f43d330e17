"""Units made of generator functions."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import logging
import typing
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

import ezmsg.core as ez
from ezmsg.core.errors import ConfigError
from ezmsg.util.generator import send
from ezmsg.util.messages.arrays import are_equal
from ezmsg.util.messages.axisarray import AxisArray

logger = logging.getLogger("ezmsg")

NONE = type(None)
GeneratorFunction = Callable[..., Generator[Any, Any, None]]


def gen_to_unit(
    func: GeneratorFunction,
    sleep_time: float = 0.0,
    output_stream_kwargs: Mapping[str, Any] = {},
    msg_to_state: Mapping[str, str] = {},
) -> tuple[Any, Any]:
    """Make a unit of a generator function.

    The parameters of the function become settings. What its generators are sent arrives at the stream INPUT, what they
    yield is published on OUTPUT (INPUT_SIGNAL and OUTPUT_SIGNAL where that is an AxisArray); a generator that is sent
    nothing is a source. When it ends, so does the unit.

    Args:
        func: With an annotated return type, `Generator[what it yields, what it is sent, None]`, where None stands for
            no such stream.
        sleep_time: Seconds a source waits after each message.
        output_stream_kwargs: Arguments of the OutputStream.
        msg_to_state: Parameters of the function that come with messages, by the attribute of the message they are in:
            when one changes, the generator is made anew before it is sent this message.

    Returns:
        The classes of the settings and of the unit, called like the function.

    Raises:
        ConfigError: The function does not say that it returns a generator, or has no such parameters.
    """
    hints = _hints(func)
    sent, yielded = _message_types(func, hints.get("return"))
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [it for it in inspect.signature(func).parameters.values() if it.kind not in variadic]
    annotations = {parameter.name: hints.get(parameter.name, parameter.annotation) for parameter in parameters}
    if unknown := set(msg_to_state.values()) - annotations.keys():
        raise ConfigError("msg_to_state", unknown, f"parameters of {func.__name__}: {', '.join(annotations)}")
    if sleep_time and sent is not NONE:
        logger.warning("%s: sleep_time=%g is ignored, because messages set its pace", func.__name__, sleep_time)
    name = func.__name__[:1].upper() + func.__name__[1:]
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not inspect.Parameter.empty
    }
    common: dict[str, Any] = {"__module__": func.__module__}
    settings = type(f"{name}Settings", (ez.Settings,), {**common, "__annotations__": dict(annotations), **defaults})
    state_fields = {**annotations, "gen": Generator[yielded, sent, None]}
    state = type(f"{name}State", (ez.State,), {**common, "__annotations__": state_fields})
    body = _body(func, list(annotations), sent, yielded, dict(output_stream_kwargs), dict(msg_to_state), sleep_time)
    return settings, type(f"{name}Unit", (ez.Unit,), {**common, "SETTINGS": settings, "STATE": state, **body})


def _hints(func: GeneratorFunction) -> dict[str, Any]:
    try:
        return typing.get_type_hints(func)
    except NameError:  # an annotation that only a type checker can resolve
        return dict(inspect.get_annotations(func))


def _message_types(func: GeneratorFunction, returned: Any) -> tuple[Any, Any]:
    """What generators of a function are sent, and what they yield."""
    if typing.get_origin(returned) is not collections.abc.Generator:
        raise ConfigError(func.__name__, returned, "a function whose return type is annotated, and is a Generator[…]")
    yielded, sent, _ = (NONE if it is None else it for it in typing.get_args(returned))
    return sent, yielded


def _body(
    func: GeneratorFunction,
    parameters: list[str],
    sent: Any,
    yielded: Any,
    output_kwargs: dict[str, Any],
    msg_to_state: dict[str, str],
    sleep_time: float,
) -> dict[str, Any]:
    """The body of the unit's class."""

    def renew(unit: Any) -> None:
        unit.STATE.gen = func(**{name: getattr(unit.STATE, name) for name in parameters})

    def initialize(self: Any) -> None:
        for name in parameters:
            setattr(self.STATE, name, getattr(self.SETTINGS, name))
        renew(self)

    def shutdown(self: Any) -> None:
        if self.STATE is not None and hasattr(self.STATE, "gen"):
            self.STATE.gen.close()

    def take(unit: Any, message: Any) -> Any:
        changed = {
            name: getattr(message, attribute)
            for attribute, name in msg_to_state.items()
            if not are_equal(getattr(unit.STATE, name), getattr(message, attribute))
        }
        if changed:
            for name, value in changed.items():
                setattr(unit.STATE, name, value)
            unit.STATE.gen.close()
            renew(unit)
        return send(unit.STATE.gen, message)

    source = output = None
    output_name = "OUTPUT_SIGNAL" if yielded is AxisArray else "OUTPUT"
    body: dict[str, Any] = {"initialize": initialize, "shutdown": shutdown}
    if sent is not NONE:
        body["INPUT_SIGNAL" if sent is AxisArray else "INPUT"] = source = ez.InputStream(sent)
    if yielded is not NONE:
        body[output_name] = output = ez.OutputStream(yielded, **output_kwargs)

    if source is not None and output is not None:

        @ez.subscriber(source)
        @ez.publisher(output)
        async def pass_on(self: Any, message: Any) -> AsyncIterator[Any]:
            yield self.streams[output_name], take(self, message)

        body["pass_on"] = pass_on
    elif source is not None:

        @ez.subscriber(source)
        async def receive(self: Any, message: Any) -> None:
            take(self, message)

        body["receive"] = receive
    elif output is not None:

        @ez.publisher(output)
        async def publish(self: Any) -> AsyncIterator[Any]:
            for message in self.STATE.gen:
                yield self.streams[output_name], message
                if sleep_time:
                    await asyncio.sleep(sleep_time)

        body["publish"] = publish
    return body
