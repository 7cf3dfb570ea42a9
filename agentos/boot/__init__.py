"""The composition root: the only place that knows every room. It reads settings, picks adapters, starts and stops.

>>> async with open_runtime(Home(Path("~/.agentos").expanduser())) as runtime:      # doctest: +SKIP
...     print(runtime.url)
"""
