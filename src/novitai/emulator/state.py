# SPDX-License-Identifier: Apache-2.0
"""The complete state of an emulator; it contains no HTTP code."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator

from novitai.emulator import catalogue, lifecycle, resources
from novitai.emulator.books import Books
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
from novitai.emulator.utilization import Utilization

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

CONTROL = "control"
"""The creator or deleter of instances that the control API created or deleted."""


class Emulator:
    """The clock, the catalogue, the instances and all other state."""

    def __init__(self, config: EmulatorConfig) -> None:
        self.config = config
        self.clock = EmulatorClock(config.speed, source=config.time_source)
        self.rng = random.Random(config.seed)  # noqa: S311 - nothing here is a secret
        self.listeners = Listeners(self.clock, self.instance_or_none)
        self.public_url = config.public_url
        self._restore()

    def reset(self) -> None:
        """Restore the initial catalogue, account, instances, faults, calls, settings and speed.

        The clock's time continues, so that no two instances have the same creation time.
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
        self.recent_bill_lists: dict[str, deque[float]] = {}
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
        self.books = Books(self.settings, self.ever, self.clock.now())
        self.utilizations: dict[str, Utilization] = {}
        self.accounts: dict[str, str] = {}
        self._late: list[tuple[float, int, Callable[[float], object]]] = []
        self._postponed = 0
        self.next_template = 200_000

    def postpone(self, seconds: float, effect: Callable[[float], object]) -> None:
        """Call `effect` after some virtual seconds, with the time at which it was due."""
        self._postponed += 1
        heapq.heappush(self._late, (self.clock.now() + seconds, self._postponed, effect))

    def settle(self) -> None:
        """Run the postponed effects that are due, in the order of their times.

        Instances that the balance no longer pays are frozen. All code that reads or changes
        instances calls this first.
        """
        now = self.clock.now()
        while self._late and self._late[0][0] <= now:
            at, _, effect = heapq.heappop(self._late)
            self._freeze_unpaid(at)
            effect(at)
        self._freeze_unpaid(now)

    def _freeze_unpaid(self, now: float) -> None:
        at = self.books.exhausted_at(now)
        if at is None:
            return
        for instance in list(self.instances.values()):
            if lifecycle.can_freeze(instance, at):
                self.put(lifecycle.freeze(instance, at, self.pace), at)
        self.books.forget_left()
        self.books.left(now)

    def change_settings(self, settings: Settings, *, refill: bool, grant: bool) -> None:
        """Change the settings now; `refill` sets the balance to theirs, `grant` the voucher."""
        self.books.change(settings, self.clock.now(), refill=refill, grant=grant)
        self.settings = settings

    @property
    def pace(self) -> Pace:
        """The current delay ranges and the random generator."""
        return Pace(self.settings.delays, self.rng)

    def hex_id(self, digits: int = 16) -> str:
        """Return a new ID of lower-case hexadecimal digits."""
        return f"{self.rng.getrandbits(digits * 4):0{digits}x}"

    def job_id(self) -> str:
        """Return a new job ID: 16 lower-case letters and digits."""
        return "".join(self.rng.choices(_BASE36, k=16))

    def add(self, instance: Instance) -> Instance:
        """Add a new instance; a spot instance gets the reclaim that the settings specify."""
        lifetime = self.settings.spot_lifetime_seconds
        if instance.billing_mode is BillingMode.SPOT and lifetime is not None:
            due = instance.created_at + max(lifetime, PROTECTION_SECONDS)
            instance = schedule_reclaim(instance, due, self.pace, protect=True)
        self.put(instance, instance.created_at)
        return instance

    def put(self, instance: Instance, at: float) -> None:
        """Store an instance, replacing the one with its ID, which was valid until `at`."""
        self.books.note(self.instance_or_none(instance.id), instance, at)
        self.past.pop(instance.id, None)
        self.instances[instance.id] = instance
        self.listeners.watch(instance)

    def instance_or_none(self, instance_id: str) -> Instance | None:
        """Return the instance, even if it is removed, or None."""
        return self.instances.get(instance_id) or self.past.get(instance_id)

    def instance(self, instance_id: str, now: float, caller: str) -> Instance:
        """Return the instance as the API shows it to a caller.

        Raises:
            Refusal: The instance does not exist, is removed, or belongs to another account.
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
        """Return the account assigned to a caller's key; by default the key has its own."""
        return self.accounts.get(caller, caller)

    def owner(self, caller: str) -> str | None:
        """Return the account whose instances the caller sees, or None if it sees all."""
        return self.account_of(caller) if self.settings.account_per_key else None

    def owns(self, caller: str, instance: Instance) -> bool:
        """Whether the caller may see and change an instance."""
        return self.owner(caller) in {None, instance.account}

    def visible(self, instance: Instance, seen: Phase, now: float) -> bool:
        """Whether the API shows the instance."""
        return is_visible(instance, seen, now, self.settings.removed_linger_seconds)

    def newest_first(self) -> Iterator[Instance]:
        """Iterate over the instances that the API may still show, newest first."""
        return reversed(self.instances.values())

    def ever(self) -> Iterator[Instance]:
        """Iterate over all instances since the last reset, retired ones first."""
        yield from self.past.values()
        yield from self.instances.values()

    def retire(self, gone: list[Instance]) -> None:
        """Set aside instances that no list can show any more."""
        for instance in gone:
            self.past[instance.id] = self.instances.pop(instance.id)

    def outcome(self, operation: str, instance: Instance) -> Outcome:
        """Return how an operation on this instance ends."""
        return self.faults.outcome(
            operation, instance.name, instance.product_id, instance.product_name
        )

    def add_job(self, job: Job) -> None:
        """Add a job, replacing one with the same ID."""
        self.jobs[job.id] = job
        self.jobs_until = max(self.jobs_until, job.ends_at)

    def on_job(self, instance_id: str, now: float) -> list[Job]:
        """Return the unfinished jobs of an instance."""
        if now >= self.jobs_until:
            return []
        return [
            job
            for job in self.jobs.values()
            if job.instance_id == instance_id and job.state(now) in {"pulling", "running"}
        ]

    def capacity(self, operation: str, instance: Instance) -> bool:
        """Whether there is capacity to start or migrate an existing instance."""
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
        """Check that the account has a balance above 0.

        Raises:
            Refusal: The balance is exhausted; the error has the given reason.
        """
        if self.books.left(self.clock.now()).balance <= 0:
            raise Refusal(400, reason, "balance not enough")

    def cluster(self, cluster_id: str) -> Cluster:
        """Return a cluster by ID.

        Raises:
            Refusal: The cluster does not exist.
        """
        cluster = self.clusters.get(cluster_id)
        if cluster is None:
            raise not_found("cluster")
        return cluster

    def in_use(self, *, storage: str = "", network: str = "", auth: str = "") -> bool:
        """Whether a live instance uses the resource, or a template uses the registry auth."""
        now = self.clock.now()
        for instance in self.instances.values():
            if (
                (storage and any(volume.id == storage for volume in instance.volumes))
                or (network and instance.network_id == network)
                or (auth and instance.image_auth_id == auth)
            ) and phase(instance, now).status is not Status.REMOVED:
                return True
        return bool(auth) and any(each.image_auth == auth for each in self.templates.values())
