# SPDX-License-Identifier: Apache-2.0
"""The whole state of one emulator, and nothing about HTTP."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator

from novitai.emulator import catalogue, resources
from novitai.emulator.calls import CallLog
from novitai.emulator.catalogue import Cluster, CpuProduct, Product
from novitai.emulator.clock import EmulatorClock
from novitai.emulator.config import PROTECTION_SECONDS, EmulatorConfig, Settings
from novitai.emulator.errors import Refusal, not_found
from novitai.emulator.faults import Faults
from novitai.emulator.instances import BillingMode, Instance, Phase, Status, phase
from novitai.emulator.lifecycle import Outcome, Pace, is_visible, schedule_reclaim
from novitai.emulator.listeners import Listeners
from novitai.emulator.resources import Job, Network, Prewarm, RegistryAuth, Storage, Template

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

CONTROL = "control"
"""Who did it, when nobody did it through the API."""


class Emulator:
    """Clock, catalogue, instances and everything else that `reset` makes anew."""

    def __init__(self, config: EmulatorConfig) -> None:
        self.config = config
        self.clock = EmulatorClock(config.speed, source=config.time_source)
        self.rng = random.Random(config.seed)  # noqa: S311 - nothing here is a secret
        self.listeners = Listeners(self.clock, self.instance_or_none)
        self.public_url = config.public_url
        self._restore()

    def reset(self) -> None:
        """Back to the beginning: catalogue, account, instances, faults, calls, switches, speed.

        Only the clock's time goes on, so that no two instances were ever made at one moment.
        """
        self.listeners.clear()
        self.clock.set_speed(self.config.speed)
        self._restore()
        self.listeners.nudge()

    def _restore(self) -> None:
        self.settings: Settings = self.config.settings
        self.faults = Faults(self.rng)
        self.calls = CallLog()
        self.recent_calls: deque[float] = deque()
        self.clusters: dict[str, Cluster] = {each.id: each for each in catalogue.CLUSTERS}
        self.products: dict[str, Product] = {each.id: each for each in catalogue.PRODUCTS}
        self.cpu_products: dict[str, CpuProduct] = {e.id: e for e in catalogue.CPU_PRODUCTS}
        self.templates: dict[str, Template] = {each.id: each for each in resources.TEMPLATES}
        self.auths: dict[str, RegistryAuth] = {each.id: each for each in resources.AUTHS}
        self.storages: dict[str, Storage] = {}
        self.networks: dict[str, Network] = {}
        self.jobs: dict[str, Job] = {}
        self.jobs_until = 0.0
        self.prewarms: dict[str, Prewarm] = {}
        self.instances: dict[str, Instance] = {}
        self.past: dict[str, Instance] = {}
        self.accounts: dict[str, str] = {}
        self._late: list[tuple[float, int, Callable[[float], object]]] = []
        self._postponed = 0
        self.next_template = 200_000

    def postpone(self, seconds: float, effect: Callable[[float], object]) -> None:
        """Let an effect happen some virtual seconds from now; it is given its own time."""
        self._postponed += 1
        heapq.heappush(self._late, (self.clock.now() + seconds, self._postponed, effect))

    def settle(self) -> None:
        """Carry out the postponed effects whose time has come, in the order of their times.

        Everything that reads or changes instances calls this first.
        """
        now = self.clock.now()
        while self._late and self._late[0][0] <= now:
            at, _, effect = heapq.heappop(self._late)
            effect(at)

    @property
    def pace(self) -> Pace:
        """The delays and the randomness of this moment."""
        return Pace(self.settings.delays, self.rng)

    def hex_id(self, digits: int = 16) -> str:
        """A new id of lower-case hexadecimal digits."""
        return f"{self.rng.getrandbits(digits * 4):0{digits}x}"

    def job_id(self) -> str:
        """A new id of a job: 16 lower-case letters and digits."""
        return "".join(self.rng.choices(_BASE36, k=16))

    def add(self, instance: Instance) -> Instance:
        """Take in a new instance, with the reclaim that the settings foresee for a spot one."""
        lifetime = self.settings.spot_lifetime_seconds
        if instance.billing_mode is BillingMode.SPOT and lifetime is not None:
            due = instance.created_at + max(lifetime, PROTECTION_SECONDS)
            instance = schedule_reclaim(instance, due, self.pace, protect=True)
        self.put(instance)
        return instance

    def put(self, instance: Instance) -> None:
        """Store an instance in place of the one with its id."""
        self.past.pop(instance.id, None)
        self.instances[instance.id] = instance
        self.listeners.watch(instance)

    def instance_or_none(self, instance_id: str) -> Instance | None:
        """The instance, gone or not."""
        return self.instances.get(instance_id) or self.past.get(instance_id)

    def instance(self, instance_id: str, now: float, caller: str) -> Instance:
        """The instance as the API shows it to a caller.

        Raises:
            Refusal: It does not exist, is removed, or belongs to another account.
        """
        instance = self.instances.get(instance_id)
        if (
            instance is None
            or not self.owns(caller, instance)
            or not self.visible(instance, phase(instance, now), now)
        ):
            raise not_found("instance")
        return instance

    def account_of(self, caller: str) -> str:
        """The account of a caller: the one its key was assigned to, else one of its own."""
        return self.accounts.get(caller, caller)

    def owner(self, caller: str) -> str | None:
        """The account to which the caller's view is restricted; None if it sees all instances."""
        return self.account_of(caller) if self.settings.account_per_key else None

    def owns(self, caller: str, instance: Instance) -> bool:
        """Whether the caller sees an instance and may change it."""
        return self.owner(caller) in {None, instance.account}

    def visible(self, instance: Instance, seen: Phase, now: float) -> bool:
        """Whether the API shows the instance."""
        return is_visible(instance, seen, now, self.settings.removed_linger_seconds)

    def newest_first(self) -> Iterator[Instance]:
        """All instances that the API may still show, the youngest first."""
        return reversed(self.instances.values())

    def ever(self) -> Iterator[Instance]:
        """All instances since the last reset, those long gone first."""
        yield from self.past.values()
        yield from self.instances.values()

    def retire(self, gone: list[Instance]) -> None:
        """Put away instances that no list will show again."""
        for instance in gone:
            self.past[instance.id] = self.instances.pop(instance.id)

    def outcome(self, operation: str, instance: Instance) -> Outcome:
        """How an operation on this instance turns out."""
        return self.faults.outcome(
            operation, instance.name, instance.product_id, instance.product_name
        )

    def add_job(self, job: Job) -> None:
        """Take in a job; one of that id is replaced."""
        self.jobs[job.id] = job
        self.jobs_until = max(self.jobs_until, job.ends_at)

    def on_job(self, instance_id: str, now: float) -> list[Job]:
        """The jobs that are at work on an instance."""
        if now >= self.jobs_until:
            return []
        return [
            job
            for job in self.jobs.values()
            if job.instance_id == instance_id and job.state(now) in {"pulling", "running"}
        ]

    def capacity(self, operation: str, instance: Instance) -> bool:
        """Whether there is room for an existing instance to be started or moved."""
        what = (operation, instance.product_id, instance.product_name)
        if self.faults.refuses(*what) or self.faults.refuses(
            *what, instance.cluster_id, instance.cluster_name
        ):
            return False
        product = self.products.get(instance.product_id)
        if product is None:
            return True
        if operation == "migrate":
            return any(each.has(instance.billing_mode, instance.gpu_num) for each in product.offers)
        offer = product.offer(instance.cluster_id)
        return offer is not None and offer.free_gpus >= instance.gpu_num

    def charge(self, reason: str) -> None:
        """Check that the account can pay.

        Raises:
            Refusal: The balance is exhausted; `reason` says in whose words.
        """
        if self.settings.balance <= 0:
            raise Refusal(400, reason, "balance not enough")

    def cluster(self, cluster_id: str) -> Cluster:
        """A cluster by id.

        Raises:
            Refusal: There is none.
        """
        cluster = self.clusters.get(cluster_id)
        if cluster is None:
            raise not_found("cluster")
        return cluster

    def in_use(self, *, storage: str = "", network: str = "", auth: str = "") -> bool:
        """Whether an instance that is not removed uses a storage, network or registry auth."""
        now = self.clock.now()
        for instance in self.instances.values():
            if (
                (storage and any(volume.id == storage for volume in instance.volumes))
                or (network and instance.network_id == network)
                or (auth and instance.image_auth_id == auth)
            ) and phase(instance, now).status is not Status.REMOVED:
                return True
        return bool(auth) and any(each.image_auth == auth for each in self.templates.values())
