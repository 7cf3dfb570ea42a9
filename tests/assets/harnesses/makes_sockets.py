"""A harness that makes a socket, and does nothing with it."""

import socket
import sys

from agentos.harness import loop

socket.socket().close()
sys.exit(loop.main(sys.stdin.buffer, sys.stdout.buffer))
