"""Settings of a running unit: reported before its tasks get them, changed on request, refused when they are wrong."""

from __future__ import annotations

import asyncio
import pickle
import threading
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest

import ezmsg.core as ez
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlOperation,
    SettingsEventType,
    SettingsFieldUpdateRequest,
)
from ezmsg.core.graphserver import GraphServer
from tests.core.runtime.running import running, until


class GainSettings(ez.Settings):
    gain: int = field(default=1, metadata={"ge": 0, "le": 10})
    label: str = "x"
    step: int = 2

    def __post_init__(self) -> None:
        if self.gain % self.step:
            raise ValueError(f"gain {self.gain} is no multiple of step {self.step}")


class Even(GainSettings):
    gain: int = field(default=2, metadata={"ge": 0, "le": 10})


class Amplifier(ez.Unit):
    """Keeps what it is told; refuses the label `bad`."""

    SETTINGS = Even
    INPUT_SETTINGS = ez.InputStream(Even)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.applied: list[Any] = []
        self.may_apply = threading.Event()
        self.may_apply.set()

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, settings: Any) -> None:
        await asyncio.to_thread(self.may_apply.wait)
        if settings.label == "bad":
            raise ValueError("no such label")
        self.applied.append(settings)
        if settings.label == "last":
            raise ez.Complete


class Leaky(Amplifier):
    INPUT_SETTINGS = ez.InputStream(Even, leaky=True)

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, settings: Any) -> None:
        self.applied.append(settings)


class Deaf(ez.Unit):
    """Has the input, but no task for it."""

    SETTINGS = Even
    INPUT_SETTINGS = ez.InputStream(Even)

    @ez.task
    async def wait(self) -> None:
        await asyncio.Event().wait()


class Plain(ez.Unit):
    @ez.task
    async def wait(self) -> None:
        await asyncio.Event().wait()


class Nested(pydantic.BaseModel):
    low_hz: float = pydantic.Field(default=5.0, gt=0)
    high_hz: float = 15.0

    @pydantic.model_validator(mode="after")
    def _order(self) -> Nested:
        if self.low_hz >= self.high_hz:
            raise ValueError("low_hz must be below high_hz")
        return self


class FilterSettings(pydantic.BaseModel):
    band: Nested = Nested()
    order: int = 4


class Filter(Amplifier):
    SETTINGS = ez.Settings
    INPUT_SETTINGS = ez.InputStream(FilterSettings)

    def __init__(self) -> None:
        super().__init__()
        self.SETTINGS = FilterSettings()

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, settings: Any) -> None:
        self.applied.append(settings)


@dataclass
class Change:
    """A refused change: of which field, to what, and words of the answer."""

    path: str
    value: Any
    words: tuple[str, ...]


@pytest.mark.parametrize("unit_type", [Amplifier, Leaky])
async def test_a_changed_field_is_applied_when_the_answer_comes(
    server: GraphServer, context: ez.GraphContext, unit_type: type[Amplifier]
) -> None:
    unit = unit_type()
    async with running(ez.GraphRunner(AMP=unit, graph_address=server.address), context):
        answer = await context.update_setting("AMP", "gain", 4)

        assert [settings.gain for settings in unit.applied] == [4]
        assert answer.structured_value == {"gain": 4, "label": "x", "step": 2}
        assert answer.serialized is not None
        assert pickle.loads(answer.serialized) == Even(gain=4)
        assert (await context.settings_snapshot())["AMP"] == answer
        await context.update_setting("AMP", "label", "y")
        assert unit.applied[-1] == Even(gain=4, label="y")


@pytest.mark.parametrize(
    "change",
    [
        Change("gain", 11, ("gain=11", "out of bounds", "≤ 10")),
        Change("gain", "loud", ("gain='loud'", "wrong type", "integer")),
        Change("gain", 3, ("gain=3", "gain 3 is no multiple of step 2")),
        Change("volume", 3, ("volume=3", "unknown field", "gain, label, step")),
        Change("", 3, ("''", "names no field")),
        Change("gain.most", 3, ("gain.most",)),
    ],
    ids=lambda change: f"{change.path}={change.value}",
)
async def test_a_wrong_value_never_reaches_the_unit(
    server: GraphServer, context: ez.GraphContext, change: Change
) -> None:
    unit = Amplifier()
    async with running(ez.GraphRunner(AMP=unit, graph_address=server.address), context):
        request = SettingsFieldUpdateRequest(change.path, change.value)
        operation = ProcessControlOperation.UPDATE_SETTING_FIELD
        response = await context.process_request("AMP", operation, payload_obj=request)

        assert response.error_code is ProcessControlErrorCode.HANDLER_ERROR
        assert response.error is not None
        assert all(words in response.error for words in change.words), response.error
        assert unit.applied == []
        assert len(await context.settings_events()) == 1
        await context.update_setting("AMP", "gain", 4)


async def test_models_of_pydantic_have_the_last_word(server: GraphServer, context: ez.GraphContext) -> None:
    unit = Filter()
    async with running(ez.GraphRunner(FILTER=unit, graph_address=server.address), context):
        with pytest.raises(RuntimeError, match="low_hz must be below high_hz"):
            await context.update_setting("FILTER", "band.low_hz", 20.0)
        with pytest.raises(RuntimeError, match=r"band\.low_hz=-1\.0: out of bounds"):
            await context.update_setting("FILTER", "band.low_hz", -1.0)
        await context.update_setting("FILTER", "band.low_hz", 8.0)

    assert unit.applied == [FilterSettings(band=Nested(low_hz=8.0))]


async def test_a_task_that_raises_is_the_answer_and_the_settings_before_count(
    server: GraphServer, context: ez.GraphContext
) -> None:
    unit = Amplifier()
    async with running(ez.GraphRunner(AMP=unit, graph_address=server.address), context):
        with pytest.raises(RuntimeError, match=r"HANDLER_ERROR.*AMP could not apply .*ValueError: no such label"):
            await context.update_setting("AMP", "label", "bad")

        assert (await context.settings_snapshot())["AMP"].structured_value == {"gain": 2, "label": "x", "step": 2}
        await context.update_setting("AMP", "gain", 6)
        assert unit.applied == [Even(gain=6)]


async def test_an_answer_waits_until_the_task_has_handled_the_settings(
    server: GraphServer, context: ez.GraphContext
) -> None:
    unit = Amplifier()
    unit.may_apply.clear()
    async with running(ez.GraphRunner(AMP=unit, graph_address=server.address), context):
        with pytest.raises(RuntimeError, match="TIMEOUT"):
            await context.update_setting("AMP", "gain", 4, timeout=0.1)
        first = asyncio.create_task(context.update_setting("AMP", "gain", 6))
        second = asyncio.create_task(context.update_setting("AMP", "label", "y"))
        unit.may_apply.set()
        await asyncio.gather(first, second)

    assert [(settings.gain, settings.label) for settings in unit.applied] == [(4, "x"), (6, "x"), (6, "y")]


async def test_whole_settings_are_reported_before_the_task_gets_them(
    server: GraphServer, context: ez.GraphContext
) -> None:
    unit = Amplifier()
    unit.may_apply.clear()
    async with running(ez.GraphRunner(AMP=unit, graph_address=server.address), context):
        await context.update_settings("AMP", Even(gain=8))
        async for event in context.subscribe_settings_events():
            if event.event_type is SettingsEventType.SETTINGS_UPDATED:
                break

        assert event.value.structured_value == {"gain": 8, "label": "x", "step": 2}
        assert event.value.settings_schema is not None
        assert event.value.settings_schema.provider == "dataclass"
        assert unit.applied == []
        assert unit.SETTINGS == Even()
        unit.may_apply.set()


async def test_settings_that_end_the_run_are_reported_all_the_same(
    server: GraphServer, context: ez.GraphContext
) -> None:
    class Ends(ez.Unit):
        INPUT_SETTINGS = ez.InputStream(int)

        @ez.subscriber(INPUT_SETTINGS)
        async def on_settings(self, settings: int) -> None:
            raise ez.NormalTermination

    runner = ez.GraphRunner(ENDS=Ends(), graph_address=server.address)
    async with running(runner, context):
        topic = await context.settings_input_topic("ENDS")
        assert topic == "ENDS/INPUT_SETTINGS"
        await context.update_settings("ENDS", 7)
        await until(lambda: not runner.running)

    events = await context.settings_events()
    assert "7" in [event.value.repr_value for event in events if event.event_type is SettingsEventType.SETTINGS_UPDATED]


async def test_units_that_take_no_settings_refuse_them(server: GraphServer, context: ez.GraphContext) -> None:
    runner = ez.GraphRunner(DEAF=Deaf(), PLAIN=Plain(), AMP=Amplifier(), graph_address=server.address)
    operation = ProcessControlOperation.UPDATE_SETTING_FIELD
    request = SettingsFieldUpdateRequest("gain", 4)
    async with running(runner, context):
        for unit in ("DEAF", "PLAIN"):
            response = await context.process_request(unit, operation, payload_obj=request)
            assert response.error_code is ProcessControlErrorCode.UNSUPPORTED_OPERATION
            assert response.error == f"{unit} has no task here that receives from INPUT_SETTINGS"

        await context.update_setting("AMP", "label", "last")
        with pytest.raises(RuntimeError, match=r"HANDLER_ERROR.*nothing receives from AMP/INPUT_SETTINGS now"):
            await context.update_setting("AMP", "gain", 4)


async def test_other_requests_are_refused_as_such(server: GraphServer, context: ez.GraphContext) -> None:
    operation = ProcessControlOperation.UPDATE_SETTING_FIELD
    async with running(ez.GraphRunner(AMP=Amplifier(), graph_address=server.address), context):
        response = await context.process_request("AMP", "ECHO")
        assert response.error_code is ProcessControlErrorCode.UNSUPPORTED_OPERATION
        assert response.error == "Unsupported process control operation: ECHO"
        for payload in (b"", b"nonsense", pickle.dumps("gain")):
            response = await context.process_request("AMP", operation, payload=payload)
            assert response.error_code is ProcessControlErrorCode.INVALID_RESPONSE
        assert (await context.process_ping("AMP")).process_id == response.process_id


async def test_settings_of_a_unit_in_another_process_change_as_well(
    server: GraphServer, context: ez.GraphContext
) -> None:
    unit = Amplifier()
    runner = ez.GraphRunner(AMP=unit, PLAIN=Plain(), process_components=[unit], graph_address=server.address)
    async with running(runner, context):
        answer = await context.update_setting("AMP", "gain", 4)
        assert answer.structured_value == {"gain": 4, "label": "x", "step": 2}
        with pytest.raises(RuntimeError, match="gain=11: out of bounds"):
            await context.update_setting("AMP", "gain", 11)
        owners = {unit: entry for entry in (await context.snapshot()).processes.values() for unit in entry.units}
        assert owners["AMP"].pid != owners["PLAIN"].pid
