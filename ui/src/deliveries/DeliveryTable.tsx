// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { answer, client, once, type Schemas } from "../api/client";
import { queryClient } from "../api/queries";
import { Badge } from "../design/Badge";
import { Button } from "../design/Button";
import { Table, type Column } from "../design/Table";
import { Distance, Moment } from "../design/Time";
import { useRefusal } from "../session/session";

type Delivery = Schemas["Delivery"];

const TONES = { pending: "busy", delivered: "good", dead: "bad" } as const;

const COLUMNS: Column<Delivery>[] = [
  { id: "at", title: "At", cell: (one) => <Moment at={one.createdAt} /> },
  {
    id: "status",
    title: "Status",
    cell: (one) => <Badge tone={TONES[one.status]}>{one.status}</Badge>,
  },
  { id: "type", title: "Event", head: true, cell: (one) => one.type },
  {
    id: "url",
    title: "Receiver",
    from: "medium",
    cell: (one) => (
      <span className="clip" title={one.url} dir="ltr">
        {one.url}
      </span>
    ),
  },
  {
    id: "instance",
    title: "About",
    from: "widest",
    cell: (one) =>
      one.instanceId === undefined ? (
        ""
      ) : (
        <Link to="/instances/$instanceId" params={{ instanceId: one.instanceId }}>
          {one.instanceId}
        </Link>
      ),
  },
  {
    id: "last",
    title: "Last attempt",
    from: "wide",
    cell: (one) => {
      const last = one.attempts.at(-1);
      if (last === undefined) return <span className="quiet">none yet</span>;
      return (
        <span className="small" dir="auto">
          {last.statusCode ?? last.error ?? "no response"} in {last.durationMs} ms (
          {one.attempts.length})
          {one.nextAttemptAt && (
            <>
              , next <Distance at={one.nextAttemptAt} />
            </>
          )}
        </span>
      );
    },
  },
  { id: "again", title: "Actions", cell: (one) => <Again delivery={one} /> },
];

function Again({ delivery }: { delivery: Delivery }) {
  const write = useRefusal("write");
  const sending = useMutation({
    mutationFn: () =>
      answer(
        client.POST("/api/deliveries/{deliveryId}/redeliver", {
          params: { path: { deliveryId: delivery.id }, header: once() },
        }),
      ),
    onSuccess: () => {
      void queryClient.invalidateQueries({ queryKey: ["deliveries"] });
      if (delivery.instanceId !== undefined) {
        void queryClient.invalidateQueries({ queryKey: ["instance", delivery.instanceId] });
      }
    },
  });
  return (
    <>
      <Button
        refusal={write ?? (delivery.status === "pending" ? "It is still being sent" : null)}
        busy={sending.isPending}
        onClick={() => sending.mutate()}
      >
        {sending.isSuccess ? "Queued" : "Send again"}
      </Button>
      {sending.error && (
        <span role="alert" className="field-error small">
          {sending.error.message}
        </span>
      )}
    </>
  );
}

export function DeliveryTable({ deliveries }: { deliveries: Delivery[] }) {
  return (
    <Table label="Deliveries" columns={COLUMNS} rows={deliveries} rowKey={(one) => one.id} />
  );
}
