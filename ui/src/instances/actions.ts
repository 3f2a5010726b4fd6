// SPDX-License-Identifier: Apache-2.0
// The verbs: when the server would accept them, and the calls.
import { queryClient } from "../api/queries";
import { answer, client, once } from "../api/client";
import { isEnded } from "../live/apply";
import { money, perHour, plural } from "../design/format";
import type { Instance } from "./queries";

export type Verb = "start" | "stop" | "restart" | "release" | "delete";

/** Why a verb is of no use now, or null. The server decides; this saves a refused request. */
export function refusal(verb: Verb, one: Instance): string | null {
  if (one.status === "released") return "Released: novitai no longer manages it";
  if (verb === "release" && one.status === "terminated") return "It is gone already";
  if (verb === "delete") {
    if (one.status === "terminated") return "It is gone already";
    if (one.protected) return `Protected: ${one.protected.reason}`;
    return one.operation?.kind === "delete" ? "It is being deleted" : null;
  }
  const operation = one.operation;
  if (operation && operation.kind !== "follow") {
    return `A ${operation.kind} is running (${operation.phase})`;
  }
  if (verb === "release") return null;
  const from: Record<Exclude<Verb, "delete" | "release">, string[]> = {
    start: ["stopped", "failed"],
    stop: ["running"],
    restart: ["running"],
  };
  if (!from[verb].includes(one.status)) {
    return `Only possible while it is ${from[verb].join(" or ")}; it is ${one.status}`;
  }
  return null;
}

export async function act(verb: Verb, instanceId: string): Promise<void> {
  const params = { path: { instanceId }, header: once() };
  if (verb === "start") await answer(client.POST("/api/instances/{instanceId}/start", { params }));
  if (verb === "stop") await answer(client.POST("/api/instances/{instanceId}/stop", { params }));
  if (verb === "restart") {
    await answer(client.POST("/api/instances/{instanceId}/restart", { params }));
  }
  if (verb === "release") {
    await answer(client.POST("/api/instances/{instanceId}/release", { params }));
  }
  if (verb === "delete") await answer(client.DELETE("/api/instances/{instanceId}", { params }));
  void queryClient.invalidateQueries({ queryKey: ["instance", instanceId] });
}

/** What a verb saves, and what goes on costing. */
export function consequence(verb: Verb, ones: Instance[]): string {
  const billed = ones.filter((one) => ["running", "starting", "migrating"].includes(one.status));
  const rate = billed.reduce((sum, one) => sum + (one.hourlyPrice ?? 0), 0);
  const saved = rate > 0 ? `Saves ${perHour(rate)}.` : "None of them is billed for GPUs now.";
  if (verb === "stop") {
    return `${saved} The disks are kept and may go on costing; addresses change at the next start.`;
  }
  if (verb === "release") {
    return "It stays as it is at Novita and goes on costing there; novitai neither stops nor limits it any longer.";
  }
  if (verb === "delete") {
    return `${saved} ${plural(ones.length, "disk")} with all data will be gone for good.`;
  }
  const price = ones.reduce((sum, one) => sum + (one.hourlyPrice ?? 0), 0);
  if (verb === "start") {
    return price > 0
      ? `Costs ${perHour(price)} while it runs, ${money(price * 24)} a day. The price may have changed.`
      : "It is billed again while it runs.";
  }
  return "It stays billed during the restart. Programs on it end, and addresses may change.";
}

/** Run one call for each, four at a time; return the failures by ID. */
export async function actOnAll(verb: Verb, ids: string[]): Promise<Map<string, Error>> {
  const failed = new Map<string, Error>();
  const left = [...ids];
  const work = async () => {
    for (let id = left.shift(); id !== undefined; id = left.shift()) {
      try {
        await act(verb, id);
      } catch (error) {
        failed.set(id, error instanceof Error ? error : new Error(String(error)));
      }
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  return failed;
}

/** The cost so far; while it runs, continued at its price from the last listing. */
export function costNow(one: Instance, now: number): string {
  const cost = one.cost;
  if (cost?.accrued === undefined) return cost?.unknown ? "unknown" : "–";
  if (one.status !== "running" || one.hourlyPrice === undefined || isEnded(one)) {
    return money(cost.accrued);
  }
  const since = Math.max(0, now - Date.parse(cost.asOf)) / 3_600_000;
  return `≈ ${money(cost.accrued + since * one.hourlyPrice)}`;
}
