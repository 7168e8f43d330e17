"""The table of steps of the message path, measured for a moment."""

import asyncio

from benchmarks.steps import BEGIN, END, PAGE, measure, replaced, steps, table, whole


def test_each_step_runs_and_has_its_line_in_the_page() -> None:
    found = measure(steps(), repeats=1, turn_s=1e-6)
    found["whole"] = asyncio.run(whole(messages=100, repeats=1))
    lines = table(found).splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == [
        f"| {name} | {ns:,.0f} |" for name, ns in found.items()
    ]
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| {step.name} |" in page for step in steps())


def test_only_the_figures_of_the_page_are_replaced() -> None:
    assert replaced(f"before\n{BEGIN}old\n{END}\nafter\n", "new\n") == f"before\n{BEGIN}new\n{END}\nafter\n"
