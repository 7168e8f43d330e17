from __future__ import annotations

from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core.errors import AlreadyAddressed, InvalidResult, NameClash, NotAComponent
from ezmsg.core.relay import RelaySettings
from ezmsg.core.runtime.preparation import prepare, walk
from tests.core.runtime.trees import Crossing, Part, collection


class Gain(ez.Settings):
    gain: int


class Scaler(Part):
    SETTINGS = Gain


def addresses(units: list[ez.Unit]) -> list[str]:
    return [unit.address for unit in units]


def test_components_are_named_by_the_mapping_and_placed_below_the_root() -> None:
    system = collection(A=Part())
    prepared = prepare({"SYS": system, "B": Part()}, root_name="ROOT")
    assert prepared is not None
    assert (prepared.root_name, prepared.components["SYS"]) == ("ROOT", system)
    assert [it.address for it in walk(prepared.components.values())] == ["ROOT/SYS", "ROOT/SYS/A", "ROOT/B"]
    assert system.A.OUTPUT.address == "ROOT/SYS/A/OUTPUT"


def test_without_a_root_addresses_start_with_the_name() -> None:
    prepared = prepare({"A": Part()})
    assert prepared is not None
    assert prepared.root_name is None
    assert addresses(prepared.processes[0]) == ["A"]


def test_calls_are_made_in_the_documented_order() -> None:
    calls: list[str] = []

    class Told(ez.Collection):
        RELAY = ez.InputRelay(int)
        A = Part()

        def network(self) -> Any:
            assert "__relay_in_RELAY" in self.components
            calls.append(f"network {self.address}")
            return ()

        def process_components(self) -> Any:
            calls.append(f"processes {self.address}")
            return ()

        def configure(self) -> None:
            calls.append(f"configure {self.address}")
            assert self.components["__relay_in_RELAY"].SETTINGS == RelaySettings()
            self.RELAY.max_queue = 5
            self.RELAY.leaky = True

    class Outer(Told):
        INNER = Told()
        OTHER = Told()

    prepared = prepare({"OUT": Outer(), "NEXT": Told()})
    every = ["OUT", "OUT/INNER", "OUT/OTHER", "NEXT"]
    assert calls == [f"{call} {it}" for call in ("network", "processes", "configure") for it in every]
    assert prepared is not None
    hidden = [unit for unit in prepared.processes[0] if unit.name.startswith("__relay_in_")]
    assert [unit.SETTINGS for unit in hidden] == [RelaySettings(leaky=True, max_queue=5)] * 4


def test_children_are_configured_after_their_parents() -> None:
    class Inner(ez.Collection):
        SETTINGS = Gain
        LEAF = Scaler()

        def configure(self) -> None:
            self.LEAF.apply_settings(Gain(self.SETTINGS.gain + 1))

    class Outer(ez.Collection):
        INNER = Inner()

        def configure(self) -> None:
            self.INNER.apply_settings(Gain(1))

    prepared = prepare({"SYS": Outer()})
    assert prepared is not None
    assert prepared.processes[0][0].SETTINGS == Gain(2)


def test_connections_join_the_networks_of_all_collections() -> None:
    inner = collection(B=Part())
    inner.network = lambda: ((inner.B.OUTPUT, "OUT"),)
    system = collection(A=Part(), INNER=inner)
    system.network = lambda: ((system.A.OUTPUT, inner.B.INPUT),)
    extra = Part()
    prepared = prepare({"SYS": system, "X": extra}, connections=[("IN", extra.INPUT), (extra.OUTPUT, "SYS/A/INPUT")])
    assert prepared is not None
    assert prepared.connections == [
        ("SYS/A/OUTPUT", "SYS/INNER/B/INPUT"),
        ("SYS/INNER/B/OUTPUT", "OUT"),
        ("IN", "X/INPUT"),
        ("X/OUTPUT", "SYS/A/INPUT"),
    ]


def test_relays_are_rewired_and_their_units_run() -> None:
    system = collection(Crossing, A=Part())
    system.network = lambda: ((system.RELAY_IN, system.A.INPUT),)
    prepared = prepare({"SYS": system}, connections=[("x", system.RELAY_IN)])
    assert prepared is not None
    assert addresses(prepared.processes[0]) == [
        "SYS/A",
        "SYS/__relay_in_RELAY_IN",
        "SYS/__relay_out_RELAY_OUT",
    ]
    assert ("x", "SYS/RELAY_IN") in prepared.connections
    assert ("SYS/__relay_in_RELAY_IN/OUTPUT", "SYS/A/INPUT") in prepared.connections
    assert ("SYS/RELAY_IN", "SYS/A/INPUT") not in prepared.connections


def test_a_collection_that_is_only_a_relay_has_units_to_run() -> None:
    prepared = prepare({"SYS": Crossing()})
    assert prepared is not None
    assert len(prepared.processes[0]) == 2


def test_processes_are_those_asked_for() -> None:
    system = collection(A=Part(), B=Part())
    system.listed = [system.B]
    prepared = prepare({"SYS": system, "X": Part(), "Y": Part()}, process_components=(it for it in [system]))
    assert prepared is not None
    assert [addresses(group) for group in prepared.processes] == [["X", "Y"], ["SYS/B"], ["SYS/A"]]


def test_one_process_can_be_forced() -> None:
    system = collection(A=Part(), B=Part())
    system.listed = [system.B]
    prepared = prepare({"SYS": system}, force_single_process=True)
    assert prepared is not None
    assert len(prepared.processes) == 1


def test_methods_assigned_to_the_instance_count() -> None:
    system = collection(A=Part(), B=Part())
    system.configure = lambda: setattr(system.A, "configured", True)
    system.process_components = lambda: [system.A]
    prepared = prepare({"SYS": system})
    assert prepared is not None
    assert [addresses(group) for group in prepared.processes] == [["SYS/B"], ["SYS/A"]]
    assert system.A.configured


@pytest.mark.parametrize("components", [{}, {"SYS": ez.Collection()}, {"A": ez.Component()}])
def test_without_units_there_is_nothing_to_run(components: dict[str, Any]) -> None:
    assert prepare(components) is None


def test_components_can_be_prepared_once() -> None:
    components = {"A": Part()}
    prepare(components)
    with pytest.raises(AssertionError, match="A has its name already") as caught:
        prepare(components)
    assert isinstance(caught.value, AlreadyAddressed)


def test_one_component_in_two_places_is_refused() -> None:
    part = Part()
    with pytest.raises(AlreadyAddressed):
        prepare({"A": part, "B": part})
    part = Part()
    with pytest.raises(AlreadyAddressed):
        prepare({"SYS": collection(A=part, B=part)})
    itself = ez.Collection()
    itself._components["ITSELF"] = itself
    with pytest.raises(AlreadyAddressed):
        prepare({"SYS": itself})


def test_two_components_with_one_address_are_refused() -> None:
    twins = [Part(), Part()]
    for twin in twins:
        twin._set_name("TWIN")
    with pytest.raises(NameClash, match="SYS/TWIN"):
        prepare({"SYS": collection(A=twins[0], B=twins[1])})
    with pytest.raises(NameClash, match="SYS/A"):
        prepare({"SYS": collection(A=Part()), "SYS/A": Part()})


@pytest.mark.parametrize("value", [Part, None, "A"])
def test_what_is_no_component_is_refused_before_anything_is_named(value: Any) -> None:
    part = Part()
    with pytest.raises(TypeError, match=r"^B is .*no unit or collection") as caught:
        prepare({"A": part, "B": value})
    assert isinstance(caught.value, NotAComponent)
    assert prepare({"A": part}) is not None


@pytest.mark.parametrize("name", ["", 1, None])
def test_names_are_text(name: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name!r} cannot be the name of a component"):
        prepare({name: Part()})
    with pytest.raises(ValueError, match=r"^root_name=5 cannot be used"):
        prepare({"A": Part()}, root_name=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the name of a component='.ud800' cannot be used"):
        prepare({"\ud800": Part()})


@pytest.mark.parametrize(
    ("method", "result"), [("network", None), ("network", [5]), ("process_components", None), ("configure", 1 / 2)]
)
def test_what_a_method_does_wrong_is_reported_with_the_collection(method: str, result: Any) -> None:
    inner = collection(A=Part())
    if method == "configure":
        setattr(inner, method, lambda: {}["missing"])
    else:
        setattr(inner, method, lambda: result)
    with pytest.raises((InvalidResult, KeyError)) as caught:
        prepare({"SYS": collection(INNER=inner)})
    assert caught.value.__notes__ == ["raised while the collection SYS/INNER was prepared"]
    assert method == "configure" or str(caught.value).startswith(f"{method}() of SYS/INNER gave")


def test_a_single_component_is_no_collection_of_components() -> None:
    system = collection(A=Part())
    system.process_components = lambda: system.A
    with pytest.raises(TypeError, match=r"process_components\(\) of SYS gave .*for example \(self\.CHILD,\)"):
        prepare({"SYS": system})
    part: Any = Part()
    with pytest.raises(TypeError, match=r"^process_components gave"):
        prepare({"A": part}, process_components=part)


class Hearing(ez.Unit):
    INPUT = ez.InputStream(int)
    INPUT_SETTINGS = ez.InputStream(Gain)

    @ez.subscriber(INPUT)
    async def hear(self, message: int) -> None:
        """Hear it."""

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, settings: Gain) -> None:
        """Take them, if they come."""


def test_a_stream_to_which_nothing_leads_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ezmsg")
    source, fed, unfed = Part(), Hearing(), Hearing()
    prepare({"A": source, "FED": fed, "UNFED": unfed}, connections=[(source.OUTPUT, fed.INPUT)])
    (line,) = caplog.messages
    assert line.startswith("nothing of this run leads to UNFED/INPUT: ")


def test_what_is_no_component_of_a_run_gets_no_process_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare({"A": Part()}, process_components=["A"])  # type: ignore[list-item]
    assert prepared is not None
    assert len(prepared.processes) == 1
    assert caplog.messages == ["process_components has 'A', which is none of A: ignored"]
