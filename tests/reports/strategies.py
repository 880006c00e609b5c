"""Findings of any content, also what no run would write but a data file may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Context, Event, Frame, Scenario, Site, Stack, Step, Timeline, Violation

#: Low surrogates come from file names that aren't UTF-8; a high one next to them would be another text in JSON.
any_text = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b\x9b\r\n\t\u202e\u2028\udc80`日\u0301")), max_size=30
)
lines = st.integers(0, 100_000)
columns = st.integers(-1, 40)

frames = st.builds(Frame, any_text, lines, any_text, any_text)
sites = st.builds(Site, any_text, any_text, lines, any_text, any_text, any_text, any_text, columns, columns, any_text)
stacks = st.builds(Stack, any_text, any_text, st.lists(frames, max_size=3).map(tuple))
steps = st.builds(Step, st.integers(0, 5), any_text, any_text)
texts = st.lists(any_text, max_size=3).map(tuple)
scenarios = st.builds(
    Scenario, st.lists(any_text, max_size=5).map(tuple), st.lists(steps, max_size=5).map(tuple), any_text
)
events = st.builds(Event, any_text, lines, any_text, any_text, st.integers(1, 9), st.booleans())
timelines = st.builds(Timeline, any_text, st.lists(events, max_size=3).map(tuple))
contexts = st.builds(Context, any_text, any_text, any_text, any_text, lines, any_text, st.booleans())

violations = st.builds(
    Violation,
    rule=any_text,
    slug=any_text,
    grade=st.sampled_from(GRADES),
    message=any_text,
    locks=texts,
    sites=st.lists(sites, max_size=3).map(tuple),
    stacks=st.lists(stacks, max_size=2).map(tuple),
    owners=texts,
    count=st.integers(1, 2000),
    fingerprint=any_text,
    allowed_by=st.none() | any_text,
    keys=texts,
    scenario=st.none() | scenarios,
    timeline=st.none() | timelines,
    contexts=st.lists(contexts, max_size=3).map(tuple),
    contexts_title=any_text,
    held=texts,
    notes=texts,
    helps=texts,
    allow=texts,
)
