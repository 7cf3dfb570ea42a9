"""What begins by itself: runs of triggers, standing agents, work of the runtime; each exactly once, whatever crashes.

    fired = await triggers.fire("default", Firing("digest", "2026-11-21T07:00:00Z", at_ms=now, source="cron"))
    told = judge(units, now_ms)                                  # what is to be done about each standing agent

`triggers` is where firings come in; `launch` takes one to its run; `overlap`, `timetable`, `run_ends` and `arriving` say what
fires, `progress` what is kept of it. `supervise` keeps standing agents alive. Sessions are begun and ended through ports of this
room; nothing here decides what a session may do.
"""
