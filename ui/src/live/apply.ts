// SPDX-License-Identifier: Apache-2.0
// Puts events into the cache: many at a time, so that a burst renders once, and reads again at
// most once a second what an event only hints at.
import type { InfiniteData, QueryKey } from "@tanstack/react-query";

import type { Schemas } from "../api/client";
import { queryClient } from "../api/queries";
import type { LiveEvent } from "./stream";

type Instance = Schemas["Instance"];
type Pages = InfiniteData<Schemas["InstanceList"], string | undefined>;

const GATHER = 120;
const PAUSE = 1000;
const COSTS_PAUSE = 15_000;
/** How many events the tab keeps. */
export const KEPT = 500;

let waiting: LiveEvent[] = [];
let flushing: ReturnType<typeof setTimeout> | undefined;
const paused = new Map<string, ReturnType<typeof setTimeout>>();
const again = new Set<string>();

export const LIVE_EVENTS = ["events", "live"] as const;

export function take(event: LiveEvent): void {
  waiting.push(event);
  flushing ??= setTimeout(flush, GATHER);
}

/** Forget what waits, at the end of a session. */
export function drop(): void {
  clearTimeout(flushing);
  flushing = undefined;
  waiting = [];
  for (const timer of paused.values()) clearTimeout(timer);
  paused.clear();
  again.clear();
}

function flush(): void {
  flushing = undefined;
  const events = waiting;
  waiting = [];
  queryClient.setQueryData<LiveEvent[]>(LIVE_EVENTS, (kept = []) =>
    [...events.toReversed(), ...kept].slice(0, KEPT),
  );
  const latest = new Map<string, Instance>();
  for (const event of events) {
    if (isSnapshot(event.data)) latest.set(event.data.id, event.data);
    for (const key of hinted(event)) soon(key, key[0] === "costs" ? COSTS_PAUSE : PAUSE);
  }
  if (latest.size > 0) {
    for (const ended of [false, true]) {
      queryClient.setQueryData<Pages>(["instances", { ended }], (pages) =>
        pages && patched(pages, latest, ended),
      );
    }
    for (const [id, snapshot] of latest) {
      queryClient.setQueryData<Instance>(["instance", id], (old) => old && merged(old, snapshot));
    }
  }
}

function isSnapshot(data: unknown): data is Instance {
  return (
    typeof data === "object" &&
    data !== null &&
    "id" in data &&
    typeof data.id === "string" &&
    "portMappings" in data
  );
}

/** The queries whose answer an event may have changed. */
function hinted(event: LiveEvent): QueryKey[] {
  const id = isSnapshot(event.data) ? event.data.id : null;
  const area = event.type.split(".")[0];
  // These bring back an instance that the list had no longer, at an unknown place.
  if (["instance.adopted", "instance.reappeared"].includes(event.type)) {
    return [["instances"], ["unmanaged"], ["costs"]];
  }
  if (id !== null) return [["instance", id], ["costs"], ["operations"], ["deliveries"], ["budgets"]];
  if (area === "budget") return [["budgets"], ["deliveries"]];
  if (area === "webhook") return [["webhooks"], ["deliveries"]];
  if (area === "account") return [["unmanaged"], ["account"]];
  return [["costs"]];
}

/** Invalidate now, and once more after the pause if more hints come meanwhile. */
function soon(key: QueryKey, pause: number): void {
  const name = JSON.stringify(key);
  if (paused.has(name)) {
    again.add(name);
    return;
  }
  void queryClient.invalidateQueries({ queryKey: key });
  paused.set(
    name,
    setTimeout(() => {
      paused.delete(name);
      if (again.delete(name)) soon(key, pause);
    }, pause),
  );
}

/** The snapshot of an event has neither the name of the creator nor `observedAt`. */
function merged(old: Instance, snapshot: Instance): Instance {
  return {
    ...snapshot,
    ...(old.createdBy && { createdBy: old.createdBy }),
    ...(old.observedAt && { observedAt: old.observedAt }),
  };
}

function patched(pages: Pages, latest: ReadonlyMap<string, Instance>, ended: boolean): Pages {
  const fresh = new Map(latest);
  let change = 0;
  const updated = pages.pages.map((page) => {
    if (!page.instances.some((one) => latest.has(one.id))) return page;
    const instances = page.instances.flatMap((one) => {
      const snapshot = latest.get(one.id);
      if (snapshot === undefined) return [one];
      fresh.delete(one.id);
      if (ended || !isEnded(snapshot)) return [merged(one, snapshot)];
      change -= 1;
      return [];
    });
    return { ...page, instances };
  });
  const first = updated[0];
  if (first === undefined) return pages;
  // An older instance is on a page that was not read yet.
  const newest = first.instances[0]?.createdAt ?? "";
  const added = [...fresh.values()].filter(
    (one) => (ended || !isEnded(one)) && one.createdAt > newest,
  );
  change += added.length;
  updated[0] = {
    ...first,
    instances: [...added.sort((a, b) => b.createdAt.localeCompare(a.createdAt)), ...first.instances],
  };
  return {
    ...pages,
    pages: updated.map((page) => ({ ...page, total: page.total + change })),
  };
}

export function isEnded(instance: Pick<Instance, "status">): boolean {
  return instance.status === "terminated" || instance.status === "released";
}
