// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";

import { answer, client } from "../api/client";
import { useBudgets } from "../budgets/queries";
import { BudgetBar } from "../budgets/BudgetBar";
import { useCostSummary } from "../costs/queries";
import { useDeliveries } from "../deliveries/queries";
import { Badge, Status } from "../design/Badge";
import { money, perHour, plural, span } from "../design/format";
import { Loaded, Skeleton } from "../design/Loading";
import { useNow } from "../design/now";
import { Problem } from "../design/Problem";
import { Table, type Column } from "../design/Table";
import { Distance, Moment } from "../design/Time";
import { EventTable } from "../events/EventTable";
import { useEvents } from "../events/queries";
import { useInstances, type Instance } from "../instances/queries";
import { useUnmanaged } from "../unmanaged/queries";
import { Page } from "../shell/Page";
import type { Schemas } from "../api/client";

const NEAR = 30 * 60_000;
const LATEST = 20;

export function OverviewPage() {
  return (
    <Page title="Overview">
      <Money />
      <Attention />
      <Budgets />
      <Latest />
    </Page>
  );
}

function Money() {
  const query = useCostSummary();
  return (
    <section className="panel" aria-label="Money">
      <Loaded query={query} lines={2}>
        {(sum) => (
          <>
            <dl className="figures">
              <Figure title="Burn now">{perHour(sum.burnPerHour)}</Figure>
              <Figure title="Today">{money(sum.today)}</Figure>
              <Figure title="This month">{money(sum.thisMonth)}</Figure>
              <Figure title="Balance at Novita">
                {sum.balance === undefined ? "not told" : money(sum.balance)}
              </Figure>
              <Figure title="Runway at this burn">
                {sum.runwayHours === undefined ? "–" : runway(sum.runwayHours)}
              </Figure>
            </dl>
            <p className="small quiet">
              As of <Moment at={sum.asOf} />
            </p>
          </>
        )}
      </Loaded>
    </section>
  );
}

function runway(hours: number): string {
  return hours > 24 * 365 ? "over a year" : span(hours * 3_600_000);
}

function Figure({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div>
      <dt>{title}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function Attention() {
  const list = useInstances(false);
  const dead = useDeliveries("dead");
  const unmanaged = useUnmanaged();
  const account = useQuery({
    queryKey: ["account"],
    queryFn: ({ signal }) => answer(client.GET("/api/account", { signal })),
  });
  const now = useNow();
  const troubled = list.rows.filter(
    (one) =>
      one.status === "failed" ||
      one.unenforced ||
      one.spotReclaimAt ||
      (one.status === "running" && one.stopsAt && Date.parse(one.stopsAt) - now < NEAR),
  );
  const waiting = unmanaged.data?.rows.filter((one) => !one.dismissed) ?? [];
  const deadOnes = dead.data?.deliveries.length ?? 0;
  const known = list.loaded && dead.data && unmanaged.data && account.data;
  const calm =
    known && troubled.length + waiting.length + deadOnes === 0 && account.data?.held !== true;
  const error = list.error ?? dead.error ?? unmanaged.error ?? account.error;
  return (
    <section className="panel" aria-labelledby="attention">
      <h2 id="attention">Needs attention</h2>
      {error && <Problem error={error} reading title="A part could not be read" />}
      {account.data?.hold && (
        <p>
          <Badge tone="bad">account held</Badge> {account.data.hold.message}{" "}
          <Link to="/unmanaged">Look</Link>
        </p>
      )}
      {waiting.length > 0 && (
        <p>
          <Badge tone="warn">unmanaged</Badge>{" "}
          <Link to="/unmanaged">{plural(waiting.length, "instance")} without a record</Link>, which
          nothing stops
        </p>
      )}
      {deadOnes > 0 && (
        <p>
          <Badge tone="bad">webhooks</Badge>{" "}
          <Link to="/deliveries" search={{ status: "dead" }}>
            {dead.data?.nextCursor ? `More than ${deadOnes} deliveries` : plural(deadOnes, "delivery", "deliveries")}
          </Link>{" "}
          were given up
        </p>
      )}
      {troubled.length > 0 && (
        <Table label="Instances" columns={COLUMNS} rows={troubled} rowKey={(one) => one.id} />
      )}
      {!known && !error && <Skeleton />}
      {calm && (
        <p className="quiet">
          Nothing. {plural(list.rows.filter((one) => one.status === "running").length, "instance")}{" "}
          run. <Link to="/instances">See all</Link>
        </p>
      )}
    </section>
  );
}

const COLUMNS: Column<Instance>[] = [
  {
    id: "name",
    title: "Name",
    head: true,
    cell: (one) => (
      <Link
        to="/instances/$instanceId"
        params={{ instanceId: one.id }}
        className="clip"
        title={one.name}
        dir="auto"
      >
        {one.name}
      </Link>
    ),
  },
  { id: "status", title: "Status", cell: (one) => <Status status={one.status} /> },
  {
    id: "why",
    title: "Why it is here",
    cell: (one) =>
      one.unenforced ? (
        "a limit is due and has no effect"
      ) : one.error ? (
        one.error.message
      ) : one.spotReclaimAt ? (
        <>
          Novita reclaims it <Distance at={one.spotReclaimAt} />
        </>
      ) : one.stopsAt ? (
        <>
          a limit stops it <Distance at={one.stopsAt} />
        </>
      ) : (
        ""
      ),
  },
  {
    id: "price",
    title: "Price",
    numeric: true,
    from: "medium",
    cell: (one) => (one.hourlyPrice === undefined ? "–" : perHour(one.hourlyPrice)),
  },
];

const SHOWN_BUDGETS = 6;

/** The budgets of which the largest part is spent or reserved. */
function mostUsed(budgets: Schemas["Budget"][]): Schemas["Budget"][] {
  const part = (one: Schemas["Budget"]) => (one.spent + one.reserved) / one.amount;
  return [...budgets].sort((a, b) => part(b) - part(a)).slice(0, SHOWN_BUDGETS);
}

function Budgets() {
  const query = useBudgets();
  return (
    <section className="panel" aria-labelledby="budgets">
      <h2 id="budgets">Budgets</h2>
      <Loaded query={query}>
        {({ rows }) =>
          rows.length === 0 ? (
            <p className="quiet">
              There is no budget. <Link to="/budgets">Set one</Link>
            </p>
          ) : (
            <>
              <ul className="plain stack">
                {mostUsed(rows).map((one) => (
                  <li key={one.id}>
                    <BudgetBar budget={one} />
                  </li>
                ))}
              </ul>
              {rows.length > SHOWN_BUDGETS && (
                <p>
                  <Link to="/budgets">All {rows.length} budgets</Link>
                </p>
              )}
            </>
          )
        }
      </Loaded>
    </section>
  );
}

type Operation = Schemas["Operation"];

function Latest() {
  const events = useEvents(LATEST);
  const query = useQuery({
    queryKey: ["operations", "latest"],
    queryFn: ({ signal }) =>
      answer(client.GET("/api/operations", { params: { query: { limit: 20 } }, signal })),
  });
  const { rows } = useInstances(false);
  const name = (id: string) => rows.find((one) => one.id === id)?.name ?? id;
  const columns: Column<Operation>[] = [
    { id: "at", title: "At", cell: (one) => <Moment at={one.createdAt} /> },
    { id: "kind", title: "Operation", head: true, cell: (one) => one.kind },
    {
      id: "instance",
      title: "Instance",
      cell: (one) =>
        one.instanceId === undefined ? (
          "the account"
        ) : (
          <Link
            to="/instances/$instanceId"
            params={{ instanceId: one.instanceId }}
            className="clip"
            dir="auto"
          >
            {name(one.instanceId)}
          </Link>
        ),
    },
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
    {
      id: "actor",
      title: "By",
      from: "medium",
      cell: (one) => one.actor?.name ?? one.actor?.system ?? "",
    },
  ];
  return (
    <>
      <section className="stack" aria-labelledby="events">
        <h2 id="events">Events, live</h2>
        {events.error && (
          <Problem
            error={events.error}
            reading
            title="The log could not be read"
            retry={() => void events.refetch()}
          />
        )}
        {events.rows.length > 0 ? (
          <>
            <EventTable events={events.rows.slice(0, LATEST)} />
            <p>
              <Link to="/events">All events</Link>
            </p>
          </>
        ) : events.loaded ? (
          <p className="panel empty">None yet. They appear here by themselves.</p>
        ) : (
          !events.error && <Skeleton lines={5} />
        )}
      </section>
      <section className="stack" aria-labelledby="operations">
        <h2 id="operations">Latest operations</h2>
        <Loaded query={query} lines={5}>
          {(list) =>
            list.operations.length === 0 ? (
              <p className="panel empty">Nothing was done yet.</p>
            ) : (
              <Table
                label="Latest operations"
                columns={columns}
                rows={list.operations}
                rowKey={(one) => one.id}
              />
            )
          }
        </Loaded>
      </section>
    </>
  );
}
