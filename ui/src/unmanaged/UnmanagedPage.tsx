// SPDX-License-Identifier: Apache-2.0
import { useMutation, useQuery } from "@tanstack/react-query";

import { answer, client, once, type Schemas } from "../api/client";
import { queryClient } from "../api/queries";
import { Badge } from "../design/Badge";
import { Button } from "../design/Button";
import { perHour } from "../design/format";
import { Loaded } from "../design/Loading";
import { Notice, Problem } from "../design/Problem";
import { Table, type Column } from "../design/Table";
import { Moment } from "../design/Time";
import { useRefusal } from "../session/session";
import { Page } from "../shell/Page";
import { useUnmanaged } from "./queries";

type Unmanaged = Schemas["UnmanagedInstance"];

export function UnmanagedPage() {
  const query = useUnmanaged();
  return (
    <Page title="Unmanaged">
      <Held />
      <p className="quiet">
        Instances of the Novita account that no record pays for. They cost money, and neither a
        limit nor a budget stops them.
      </p>
      <Loaded query={query} lines={5}>
        {({ rows }) =>
          rows.length === 0 ? (
            <p className="panel empty">
              Every instance of the account has a record, as of the last listing.
            </p>
          ) : (
            <Table
              label="Unmanaged instances"
              columns={COLUMNS}
              rows={rows}
              rowKey={(one) => one.upstreamId}
            />
          )
        }
      </Loaded>
    </Page>
  );
}

const COLUMNS: Column<Unmanaged>[] = [
  {
    id: "name",
    title: "Name at Novita",
    head: true,
    cell: (one) => (
      <>
        <span className="clip" title={one.name} dir="auto">
          {one.name || "without a name"}
        </span>
        <code className="small">{one.upstreamId}</code>
      </>
    ),
  },
  {
    id: "status",
    title: "Status",
    cell: (one) => (
      <span className="row">
        <Badge tone="idle">{one.status}</Badge>
        {one.orphan && <Badge tone="bad">orphan</Badge>}
        {one.dismissed && <Badge tone="idle">dismissed</Badge>}
      </span>
    ),
  },
  { id: "region", title: "Region", from: "wide", cell: (one) => one.region ?? "–" },
  {
    id: "price",
    title: "Price",
    numeric: true,
    cell: (one) => (one.hourlyPrice === undefined ? "–" : perHour(one.hourlyPrice)),
  },
  {
    id: "created",
    title: "Created",
    from: "medium",
    cell: (one) => (one.createdAt ? <Moment at={one.createdAt} /> : "–"),
  },
  { id: "verbs", title: "Actions", cell: (one) => <Actions one={one} /> },
];

function Actions({ one }: { one: Unmanaged }) {
  const admin = useRefusal("admin");
  const renew = () => {
    void queryClient.invalidateQueries({ queryKey: ["unmanaged"] });
    void queryClient.invalidateQueries({ queryKey: ["instances"] });
  };
  const adopting = useMutation({
    mutationFn: () =>
      answer(
        client.POST("/api/instances/adopt", {
          params: { header: once() },
          body: { upstreamId: one.upstreamId },
        }),
      ),
    onSuccess: renew,
  });
  const dismissing = useMutation({
    mutationFn: () =>
      answer(
        client.POST("/api/instances/unmanaged/{upstreamId}/dismiss", {
          params: { path: { upstreamId: one.upstreamId }, header: once() },
        }),
      ),
    onSuccess: renew,
  });
  const error = adopting.error ?? dismissing.error;
  return (
    <div className="row">
      <Button refusal={admin} busy={adopting.isPending} onClick={() => adopting.mutate()}>
        Adopt
      </Button>
      <Button
        refusal={admin ?? (one.dismissed ? "It is dismissed already" : null)}
        busy={dismissing.isPending}
        onClick={() => dismissing.mutate()}
      >
        Dismiss
      </Button>
      {error && (
        <span role="alert" className="field-error small">
          {error.message}
        </span>
      )}
    </div>
  );
}

/** The hold of the account, with what it takes to end it. */
function Held() {
  const account = useQuery({
    queryKey: ["account"],
    queryFn: ({ signal }) => answer(client.GET("/api/account", { signal })),
  });
  const admin = useRefusal("admin");
  const hold = account.data?.hold;
  const confirming = useMutation({
    mutationFn: (missingDigest: string) =>
      answer(
        client.POST("/api/account/confirm", {
          params: { header: once() },
          body: { missingDigest },
        }),
      ),
    onSuccess: () => void queryClient.invalidateQueries(),
  });
  if (account.error) {
    return <Problem error={account.error} reading title="The state of the account could not be read" />;
  }
  if (hold === undefined) return null;
  return (
    <Notice kind="bad" title={hold.message}>
      {confirming.error && <Problem error={confirming.error} />}
      <p>
        Held since <Moment at={hold.since} />. {hold.missingCount} instances are missing:
      </p>
      <ul>
        {hold.missing.slice(0, 20).map((one) => (
          <li key={one.instanceId} dir="auto">
            {one.name} <code>{one.instanceId}</code>
          </li>
        ))}
      </ul>
      <div>
        <Button
          kind="danger"
          refusal={admin}
          busy={confirming.isPending}
          onClick={() => confirming.mutate(hold.missingDigest)}
        >
          Confirm that they are gone
        </Button>
      </div>
    </Notice>
  );
}
