// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from "../api/client";
import { Badge } from "../design/Badge";
import { Loaded } from "../design/Loading";
import { Table, type Column } from "../design/Table";
import { Distance, Moment } from "../design/Time";
import { DeliveryTable } from "../deliveries/DeliveryTable";
import { EventTable } from "../events/EventTable";
import {
  useInstanceDeliveries,
  useInstanceEvents,
  useInstanceOperations,
  type Instance,
} from "./queries";

/** The events, the attempts of operations, and the messages about an instance. */
export function History({ instance }: { instance: Instance }) {
  const events = useInstanceEvents(instance.id);
  const operations = useInstanceOperations(instance.id);
  const deliveries = useInstanceDeliveries(instance.id);
  return (
    <>
      <section className="stack" aria-labelledby="operations">
        <h2 id="operations">Operations and attempts</h2>
        <Loaded query={operations}>
          {(list) => (
            <Table
              label="Operations"
              columns={OPERATIONS}
              rows={list.operations}
              rowKey={(one) => one.id}
            />
          )}
        </Loaded>
      </section>
      <section className="stack" aria-labelledby="events">
        <h2 id="events">Events</h2>
        <Loaded query={events}>
          {(list) => <EventTable events={list.rows.toReversed()} named={false} />}
        </Loaded>
      </section>
      <section className="stack" aria-labelledby="deliveries">
        <h2 id="deliveries">Webhook deliveries</h2>
        <Loaded query={deliveries}>
          {(list) =>
            list.rows.length === 0 ? (
              <p className="panel empty">No webhook received a message about it.</p>
            ) : (
              <DeliveryTable deliveries={list.rows.toReversed()} />
            )
          }
        </Loaded>
      </section>
    </>
  );
}

type Operation = Schemas["Operation"];

const OPERATIONS: Column<Operation>[] = [
  { id: "kind", title: "Operation", head: true, cell: (one) => one.kind },
  {
    id: "outcome",
    title: "Outcome",
    cell: (one) =>
      one.done ? (
        <Badge tone={one.outcome === "succeeded" ? "good" : one.outcome === "failed" ? "bad" : "idle"}>
          {one.outcome ?? "done"}
        </Badge>
      ) : (
        <Badge tone="busy">{one.phase}</Badge>
      ),
  },
  { id: "attempts", title: "Attempts", numeric: true, cell: (one) => one.attempts },
  {
    id: "error",
    title: "Why",
    from: "medium",
    cell: (one) => (one.error ? `${one.error.message} (${one.error.code})` : ""),
  },
  {
    id: "actor",
    title: "By",
    from: "wide",
    cell: (one) => one.actor?.name ?? one.actor?.system ?? "",
  },
  { id: "at", title: "Begun", cell: (one) => <Moment at={one.createdAt} /> },
  { id: "changed", title: "Changed", from: "wide", cell: (one) => <Distance at={one.updatedAt} /> },
];
