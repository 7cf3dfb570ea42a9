"""What status says of the streams of a log."""

from __future__ import annotations

from agentos.audit.checkpoint import Checkpoint, Tree
from agentos.boot.log_report import log_report
from agentos.eventlog.adapters.streams import StreamFacts


def facts(name: str, last: int, size: int = 100) -> StreamFacts:
    return StreamFacts(name, True, 1, last, size * last, 1, 1 if last else 0, last, "")


STREAMS = [facts("AUD", 1), facts("BLOB_202611", 4), facts("CKPT", 9), facts("EV_202611_0", 30), facts("EV_202612_1", 5)]
SIGNED = Checkpoint("agentos/0123456789abcdef/acme", 9, b"", 0, {"EV_202611_0": Tree(28, b""), "AUD": Tree(1, b"")})


def test_who_is_how_far_behind_stands_at_each_stream() -> None:
    """Events count, blobs and checkpoints do not; a stream that no checkpoint names is behind with all it holds."""
    report = log_report(STREAMS, {"EV_202612_1": 2}, SIGNED)
    lags = {row["name"]: (row["read_model_behind"], row["checkpoint_behind"]) for row in report["streams"]}
    assert lags == {
        "AUD": (0, 0),
        "BLOB_202611": (None, None),
        "CKPT": (None, None),
        "EV_202611_0": (0, 2),
        "EV_202612_1": (2, 5),
    }
    assert report["checkpoint_behind"] == 7
    assert report["stored"] == {"messages": 49, "bytes": 4900}


def test_a_checkpoint_that_is_younger_than_the_look_is_not_behind() -> None:
    """It may cover what came after the streams were described."""
    report = log_report([facts("EV_202611_0", 20)], {}, SIGNED)
    assert report["checkpoint_behind"] == report["streams"][0]["checkpoint_behind"] == 0


def test_without_a_checkpoint_everything_is_unsigned() -> None:
    """And an empty log has nothing to say."""
    assert log_report(STREAMS, {}, None)["checkpoint_behind"] == 36
    assert log_report([], {}, None) == {"checkpoint_behind": 0, "stored": {"messages": 0, "bytes": 0}, "streams": []}
