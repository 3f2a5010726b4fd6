// SPDX-License-Identifier: Apache-2.0
// The filters of the list. They live in the address, so that a reload and a link keep them.
import { statusValues } from "../../generated/values";
import type { Schemas } from "../api/client";

type Instance = Schemas["Instance"];

export interface InstanceSearch {
  q?: string;
  status?: Schemas["InstanceStatus"];
  region?: string;
  mode?: Schemas["BillingMode"];
  /** `name:value` */
  tag?: string;
  /** Also terminated and released ones. */
  ended?: true;
  sort?: string;
}

export function instanceSearch(search: Record<string, unknown>): InstanceSearch {
  const status = statusValues.find((one) => one === search.status);
  const q = text(search.q);
  const region = text(search.region);
  const tag = text(search.tag);
  const sort = text(search.sort);
  return {
    ...(q && { q }),
    ...(status && { status }),
    ...(region && { region }),
    ...((search.mode === "spot" || search.mode === "onDemand") && { mode: search.mode }),
    ...(tag && { tag }),
    ...((search.ended === true || isEndedStatus(status)) && { ended: true }),
    ...(sort && { sort }),
  };
}

/** A value of the address as text; the router reads numbers as numbers. */
export function text(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}

function isEndedStatus(status: string | undefined): boolean {
  return status === "terminated" || status === "released";
}

export function matches(one: Instance, search: InstanceSearch): boolean {
  if (search.status && one.status !== search.status) return false;
  if (search.region && one.region !== search.region) return false;
  if (search.mode && one.billingMode !== search.mode) return false;
  if (search.tag) {
    const [name = "", ...value] = search.tag.split(":");
    if (one.tags[name] !== value.join(":")) return false;
  }
  if (!search.q) return true;
  const wanted = search.q.toLowerCase();
  return [one.name, one.id, one.productName, one.createdBy?.name ?? "", one.upstreamId ?? ""].some(
    (each) => each.toLowerCase().includes(wanted),
  );
}
