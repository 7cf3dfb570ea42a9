"""The one door: every command and every question is a verb of one NATS micro service, asked by a principal with a key.

    client = await open_client(url, load_identity(path))
    await client.call("session.create", {"agent": "hello", "goal": "say hello"})

`adapters` speak NATS, `authorize` asks policy who may knock, `*_verbs` are what can be asked.
"""

from agentos.control.principal import Caller, Handler, Handlers

__all__ = ["Caller", "Handler", "Handlers"]
