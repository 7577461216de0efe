# SPDX-License-Identifier: Apache-2.0
"""What a worker looks at before it starts Ray: the way to the head's, and where the checkpoints go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.launch import worker
from recipe.launch.cluster import RUN_MARK
from recipe.launch.errors import LaunchError
from recipe.launch.network import require_answer


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(worker, "SIGHT_S", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("there", [None, "an earlier run"])
def test_checkpoints_in_a_directory_of_each_host_are_refused(gcs: str, tmp_path: Path, there: str | None) -> None:
    """Each node would keep its own part of every checkpoint, and no run could go on from them."""
    if there is not None:
        (tmp_path / RUN_MARK).write_text(there)
    invitation = {"gcs": gcs, "checkpoints": str(tmp_path), "run_id": "this run"}
    with pytest.raises(LaunchError, match=r"is not the head's directory of that name.* storage that all nodes share"):
        worker._require_usable(invitation)
    (tmp_path / RUN_MARK).write_text("this run")
    worker._require_usable(invitation)


def test_a_run_without_checkpoints_needs_no_shared_storage(gcs: str) -> None:
    worker._require_usable({"gcs": gcs, "checkpoints": "", "run_id": "this run"})


def test_a_port_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(LaunchError) as caught:
        require_answer("127.0.0.1", port, "Ray's GCS on the head", limit_s=0.5)
    assert str(caught.value).startswith(
        f"Ray's GCS on the head: 127.0.0.1 port {port} does not answer (Connection refused); is it closed"
    )
