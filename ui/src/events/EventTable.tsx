// SPDX-License-Identifier: Apache-2.0
import { Link } from "@tanstack/react-router";

import type { Schemas } from "../api/client";
import { Badge, type Tone } from "../design/Badge";
import { Table, type Column } from "../design/Table";
import { Moment } from "../design/Time";

type Event = Schemas["Event"];

function tone(type: string): Tone {
  if (/failed|exceeded|unenforced|ineffective|refused|switched_off|orphan_found|unknown_owner/.test(type)) {
    return "bad";
  }
  if (/near|warning|reclaim|lost|drift|alert|unexplained|migrating|purge|unconfirmed/.test(type)) {
    return "warn";
  }
  if (/running|kept|adopted|confirmed/.test(type)) return "good";
  return /starting|stopping|terminating|created/.test(type) ? "busy" : "idle";
}

const COMMON = new Set(["id", "name", "status", "portMappings", "limits", "cost", "operation", "tags"]);

/** The facts of an event that are not the instance itself, as text. */
function facts(event: Event): string {
  const data: Record<string, unknown> = event.data;
  const isInstance = "portMappings" in data;
  const names = isInstance
    ? ["previousStatus", "drift", "reason", "message", "at", "action", "cause", "minutes", "changed",
       "cleanup", "cancelled", "previousHourlyPrice", "reclaimAt", "attempt", "surplusUpstreamId",
       "correction", "idleSince", "purgeAt", "missingSince"]
    : Object.keys(data).filter((one) => !COMMON.has(one));
  return names
    .filter((one) => data[one] !== undefined && data[one] !== null)
    .map((one) => `${one}: ${typeof data[one] === "object" ? JSON.stringify(data[one]) : String(data[one])}`)
    .join(", ");
}

function about(event: Event): { id: string; name: string } | null {
  const data: Record<string, unknown> = event.data;
  return "portMappings" in data ? { id: String(data.id), name: String(data.name) } : null;
}

const COLUMNS: Column<Event>[] = [
  { id: "at", title: "At", cell: (one) => <Moment at={one.at} /> },
  {
    id: "type",
    title: "Event",
    head: true,
    cell: (one) => <Badge tone={tone(one.type)}>{one.type}</Badge>,
  },
  {
    id: "instance",
    title: "About",
    cell: (one) => {
      const instance = about(one);
      if (instance) {
        return (
          <Link
            to="/instances/$instanceId"
            params={{ instanceId: instance.id }}
            className="clip"
            title={instance.name}
            dir="auto"
          >
            {instance.name}
          </Link>
        );
      }
      const name = one.data.name;
      return (
        <span className="clip" dir="auto">
          {typeof name === "string" ? name : "the account"}
        </span>
      );
    },
  },
  {
    id: "facts",
    title: "Facts",
    from: "wide",
    cell: (one) => (
      <span className="small" dir="auto">
        {facts(one)}
      </span>
    ),
  },
  {
    id: "actor",
    title: "By",
    from: "medium",
    cell: (one) => (
      <span className="clip" dir="auto">
        {one.actor?.name ?? one.actor?.keyId ?? one.actor?.system ?? ""}
      </span>
    ),
  },
];

export function EventTable({ events, named = true }: { events: Event[]; named?: boolean }) {
  return (
    <Table
      label="Events"
      columns={named ? COLUMNS : COLUMNS.filter((one) => one.id !== "instance")}
      rows={events}
      rowKey={(one) => one.id}
    />
  );
}
