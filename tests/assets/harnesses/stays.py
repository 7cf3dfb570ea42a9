"""A harness that stays when its input ends, and when it is told to go."""

import signal
import sys

from agentos.harness import loop

signal.signal(signal.SIGTERM, signal.SIG_IGN)
loop.main(sys.stdin.buffer, sys.stdout.buffer)
while True:
    signal.pause()
