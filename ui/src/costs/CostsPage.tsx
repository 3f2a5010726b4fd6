// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { lazy, Suspense, useMemo } from "react";

import type { Schemas } from "../api/client";
import { Badge, type Tone } from "../design/Badge";
import { Button } from "../design/Button";
import { SelectField, TextField } from "../design/Field";
import { money } from "../design/format";
import { Loaded, Skeleton } from "../design/Loading";
import { Problem } from "../design/Problem";
import { Table, type Column } from "../design/Table";
import { Moment } from "../design/Time";
import { between } from "../instances/CostPanel";
import { useInstances } from "../instances/queries";
import { Page } from "../shell/Page";
import { costsAsCsv, useCosts, useReconciliation, ZONE } from "./queries";
import { PERIODS, steps, type CostSearch, type Period } from "./search";

const route = getRouteApi("/costs");
const Chart = lazy(async () => ({ default: (await import("../design/Chart")).Chart }));

const GROUPS: Record<string, string> = {
  instance: "Instance",
  product: "Product",
  region: "Region",
  billingMode: "Billing",
  key: "API key",
};

export function CostsPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const period = search.period ?? "month";
  const by = search.by ?? "instance";
  const change = (more: CostSearch) =>
    void navigate({ search: (old) => ({ ...old, ...more }), replace: true });
  const report = useCosts(period, by);
  const csv = useMutation({
    mutationFn: () => costsAsCsv(period, by),
    onSuccess: (text) => save(text, `costs-${period}-${by.replaceAll(":", "-")}.csv`),
  });
  const isTag = by.startsWith("tag:");
  return (
    <Page
      title="Costs"
      aside={
        <Button busy={csv.isPending} onClick={() => csv.mutate()}>
          Download CSV
        </Button>
      }
    >
      {csv.error && <Problem error={csv.error} />}
      <div className="fields">
        <SelectField
          label="Period"
          value={period}
          onChange={(event) => change({ period: event.currentTarget.value as Period })}
        >
          {Object.entries(PERIODS).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </SelectField>
        <SelectField
          label="By"
          value={isTag ? "tag" : by}
          onChange={(event) =>
            change({ by: event.currentTarget.value === "tag" ? "tag:team" : event.currentTarget.value })
          }
        >
          {Object.entries(GROUPS).map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
          <option value="tag">Tag</option>
        </SelectField>
        {isTag && (
          <TextField
            label="Name of the tag"
            data-filter=""
            key={by}
            defaultValue={by.slice(4)}
            onBlur={(event) => {
              const name = event.currentTarget.value.trim();
              if (name) change({ by: `tag:${name}` });
            }}
            onKeyDown={(event) => {
              const name = event.currentTarget.value.trim();
              if (event.key === "Enter" && name) change({ by: `tag:${name}` });
            }}
          />
        )}
      </div>
      <Days period={period} />
      <Loaded query={report} lines={6}>
        {(found) => <Groups report={found} by={by} />}
      </Loaded>
      <Reconciled />
    </Page>
  );
}

function Days({ period }: { period: Period }) {
  const hourly = period === "today";
  const query = useCosts(period, "billingMode", hourly ? "hour" : "day");
  const lines = useMemo(() => {
    const days = new Map(steps(period).map((at): [number, number] => [at, 0]));
    for (const row of query.data?.rows ?? []) {
      if (row.bucket === undefined) continue;
      const at = Date.parse(row.bucket) / 1000;
      days.set(at, (days.get(at) ?? 0) + row.amount);
    }
    return [{ name: hourly ? "Last hour" : "Last day", points: [...days].sort(([a], [b]) => a - b) }];
  }, [query.data, hourly, period]);
  return (
    <section className="panel" aria-labelledby="days">
      <h2 id="days">{hourly ? "USD per hour of the day" : "USD per day"}</h2>
      <Loaded query={query} lines={6}>
        {() =>
          lines[0]?.points.some(([, amount]) => amount > 0) ? (
            <Suspense fallback={<Skeleton lines={6} />}>
              <Chart label="Costs over time" unit="USD" bars lines={lines} />
            </Suspense>
          ) : (
            <p className="empty">Nothing was billed in this period.</p>
          )
        }
      </Loaded>
      <p className="small quiet">Time zone: {ZONE}</p>
    </section>
  );
}

function Groups({ report, by }: { report: Schemas["CostReport"]; by: string }) {
  const { rows } = useInstances(false);
  const bills = useReconciliation();
  const names = useMemo(() => {
    const known = new Map(rows.map((one) => [one.id, one.name]));
    // The list has live instances only.
    for (const row of bills.data?.rows ?? []) {
      if (row.instanceId !== undefined && row.name !== undefined) known.set(row.instanceId, row.name);
    }
    return known;
  }, [rows, bills.data]);
  const columns: Column<Schemas["CostRow"]>[] = [
    {
      id: "key",
      title: GROUPS[by] ?? by,
      head: true,
      cell: (row) =>
        by === "instance" ? (
          <Link
            to="/instances/$instanceId"
            params={{ instanceId: row.key }}
            className="clip"
            title={names.get(row.key) ?? row.key}
            dir="auto"
          >
            {names.get(row.key) ?? row.key}
          </Link>
        ) : (
          <span className="clip" title={row.key} dir="auto">
            {row.key || "without"}
          </span>
        ),
    },
    { id: "hours", title: "GPU-hours", numeric: true, cell: (row) => row.gpuHours.toFixed(2) },
    {
      id: "amount",
      title: "Cost",
      numeric: true,
      cell: (row) => between(row.amount, row.amountAtMost),
    },
    {
      id: "share",
      title: "Share",
      numeric: true,
      from: "medium",
      cell: (row) => (report.total > 0 ? `${Math.round((row.amount / report.total) * 100)} %` : "–"),
    },
  ];
  const ordered = report.rows.toSorted((a, b) => b.amount - a.amount);
  return (
    <section className="stack" aria-labelledby="groups">
      <div className="row apart">
        <h2 id="groups">
          {between(report.total, report.totalAtMost)} in all
        </h2>
        <span className="small quiet">
          <Moment at={report.from} /> to <Moment at={report.to} />
        </span>
      </div>
      {ordered.length === 0 ? (
        <p className="panel empty">Nothing was billed in this period.</p>
      ) : (
        <Table label="Costs" columns={columns} rows={ordered} rowKey={(row) => row.key} />
      )}
    </section>
  );
}

const STATES: Record<Schemas["BillState"], [Tone, string]> = {
  matched: ["good", "matches"],
  over: ["bad", "billed too much"],
  under: ["warn", "billed too little"],
  notBilledYet: ["idle", "not billed yet"],
  unknownOwner: ["bad", "unknown owner"],
};

const BILLS: Column<Schemas["ReconciledRow"]>[] = [
  {
    id: "name",
    title: "Instance",
    head: true,
    cell: (row) =>
      row.instanceId === undefined ? (
        <code>{row.upstreamId}</code>
      ) : (
        <Link
          to="/instances/$instanceId"
          params={{ instanceId: row.instanceId }}
          className="clip"
          dir="auto"
        >
          {row.name ?? row.instanceId}
        </Link>
      ),
  },
  {
    id: "state",
    title: "Bill",
    cell: (row) => <Badge tone={STATES[row.state][0]}>{STATES[row.state][1]}</Badge>,
  },
  {
    id: "ours",
    title: "Reckoned",
    numeric: true,
    from: "medium",
    cell: (row) => between(row.ours, row.oursAtMost ?? row.ours),
  },
  { id: "billed", title: "Billed", numeric: true, cell: (row) => money(row.billed) },
  { id: "difference", title: "Difference", numeric: true, cell: (row) => money(row.difference) },
  { id: "pending", title: "Without a bill yet", numeric: true, from: "wide", cell: (row) => money(row.pending) },
];

function Reconciled() {
  const query = useReconciliation();
  return (
    <section className="stack" aria-labelledby="reconciliation">
      <h2 id="reconciliation">Compared with Novita&apos;s bills, this month</h2>
      <Loaded query={query} lines={4}>
        {(found) => (
          <>
            <p className="small quiet">
              {found.billKnownUntil ? (
                <>
                  Bills are known until <Moment at={found.billKnownUntil} />.
                </>
              ) : (
                "No bill was read yet; Novita's bills are read once an hour, two hours late."
              )}
              {found.totals.unmanaged > 0 &&
                ` Instances without a record were billed ${money(found.totals.unmanaged)}.`}
            </p>
            {found.rows.length === 0 ? (
              <p className="panel empty">There is nothing to compare in this period.</p>
            ) : (
              <Table
                label="Reconciliation"
                columns={BILLS}
                rows={found.rows}
                rowKey={(row) => row.upstreamId}
              />
            )}
          </>
        )}
      </Loaded>
    </section>
  );
}

/** Let the browser save a text as a file. */
function save(text: string, name: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
