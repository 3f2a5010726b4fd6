# SPDX-License-Identifier: Apache-2.0
"""Build the runner and register every verb with it."""

from __future__ import annotations

from typing import Final

from novitai.domain.operation import OperationKind
from novitai.lifecycle.catalogue.catalogue import Catalogue
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations.create import CreateVerb
from novitai.lifecycle.operations.delete import DeleteVerb
from novitai.lifecycle.operations.failure_policy import FailurePolicy
from novitai.lifecycle.operations.follow import FollowVerb
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.operations.probes import Prober
from novitai.lifecycle.operations.reap import ReapVerb
from novitai.lifecycle.operations.runner import Runner
from novitai.lifecycle.operations.start import StartVerb
from novitai.lifecycle.operations.startup import StartupWatcher
from novitai.lifecycle.operations.stop import StopVerb
from novitai.settings import Settings
from novitai.upstream.client import NovitaClient

CREATE_CONCURRENCY: Final = 64
VERB_CONCURRENCY: Final = 16
"""The most concurrent steps of one verb in a process."""


def build_runner(
    core: Core,
    settings: Settings,
    client: NovitaClient,
    catalogue: Catalogue,
    prober: Prober,
    follow_ups: FollowUps,
    late_calls: LateCalls,
    *,
    installation_id: str,
) -> Runner:
    """Build the runner with every verb. To add a verb, add one line to the list below."""
    clock = core.clock
    runner = Runner(core, follow_ups, late_calls, call_timeout=settings.upstream_timeout_seconds)
    startup = StartupWatcher(core, prober)
    failure = FailurePolicy(clock, core.ids, settings.failed_instance_policy)
    create = CreateVerb(
        core,
        client,
        catalogue,
        startup,
        failure,
        installation_id=installation_id,
        capacity_wait=settings.capacity_wait_seconds,
    )
    runner.register(create, concurrency=CREATE_CONCURRENCY)
    for verb in (
        StartVerb(core, OperationKind.START, client.start, startup, failure),
        StartVerb(core, OperationKind.RESTART, client.restart, startup, failure),
        StopVerb(client, clock),
        DeleteVerb(client, clock),
        ReapVerb(client, clock),
        FollowVerb(startup, clock, failure),
    ):
        runner.register(verb, concurrency=VERB_CONCURRENCY)
    return runner
