// SPDX-License-Identifier: Apache-2.0
import { Link, getRouteApi } from "@tanstack/react-router";
import { useCallback, useDeferredValue, useMemo, useState } from "react";

import { statusValues } from "../../generated/values";
import { Status } from "../design/Badge";
import { Button } from "../design/Button";
import { Question } from "../design/Dialog";
import { Check, FilterField, SelectField } from "../design/Field";
import { perHour, plural, span } from "../design/format";
import { Skeleton } from "../design/Loading";
import { useNow } from "../design/now";
import { Notice, Problem } from "../design/Problem";
import { sorted, Table, type Column } from "../design/Table";
import { Distance } from "../design/Time";
import { useRefusal } from "../session/session";
import { Page } from "../shell/Page";
import { actOnAll, consequence, costNow, refusal, type Verb } from "./actions";
import { matches, type InstanceSearch } from "./filters";
import { useInstances, type Instance } from "./queries";

const route = getRouteApi("/instances");

const rowKey = (one: Instance) => one.id;
const rowName = (one: Instance) => one.name;

export function InstancesPage() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const list = useInstances(search.ended === true);
  const wanted = useDeferredValue(search);
  const columns = useColumns();
  const shown = useMemo(
    () => sorted(list.rows.filter((one) => matches(one, wanted)), columns, wanted.sort ?? ""),
    [list.rows, wanted, columns],
  );
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set());
  const chosen = useMemo(() => shown.filter((one) => picked.has(one.id)), [shown, picked]);
  const change = (more: Partial<Record<keyof InstanceSearch, unknown>>) =>
    void navigate({ search: (old) => ({ ...old, ...more }) as InstanceSearch, replace: true });
  const rate = shown.reduce(
    (sum, one) => sum + (one.status === "running" ? (one.hourlyPrice ?? 0) : 0),
    0,
  );
  const filtered = Object.keys(search).some((name) => name !== "sort" && name !== "ended");

  return (
    <Page
      title="Instances"
      aside={
        <Link to="/new" className="button primary">
          New instance
        </Link>
      }
    >
      {list.error && (
        <Problem
          error={list.error}
          reading
          title="The list could not be read"
          retry={() => void list.refetch()}
        />
      )}
      <Filters search={search} rows={list.rows} change={change} />
      <div className="row apart">
        <p className="small" role="status">
          {list.loaded && (
            <>
              {plural(shown.length, "instance")}
              {filtered && ` of ${list.rows.length.toLocaleString("en-US")}`}
              {list.reading && `, reading ${list.total.toLocaleString("en-US")}…`} · running ones
              cost {perHour(rate)}
            </>
          )}
        </p>
        <Bulk chosen={chosen} clear={() => setPicked(new Set())} />
      </div>
      {!list.loaded && !list.error && <Skeleton lines={9} />}
      {list.loaded && shown.length === 0 && !list.reading && (
        <div className="panel empty">
          {list.rows.length === 0 ? (
            <p>
              No instances. <Link to="/new">Create the first one</Link>.
            </p>
          ) : (
            <p>
              None of {plural(list.rows.length, "instance")} matches.{" "}
              <Link to="/instances" search={{}}>
                Remove the filters
              </Link>
            </p>
          )}
        </div>
      )}
      {shown.length > 0 && (
        <Table
          label="Instances"
          columns={columns}
          rows={shown}
          rowKey={rowKey}
          rowName={rowName}
          sorting={{ by: search.sort ?? "", change: (sort) => change({ sort }) }}
          selection={{
            has: (id) => picked.has(id),
            toggle: (id) =>
              setPicked((old) => {
                const next = new Set(old);
                if (!next.delete(id)) next.add(id);
                return next;
              }),
            toggleAll: () =>
              setPicked(chosen.length === shown.length ? new Set() : new Set(shown.map(rowKey))),
            all: chosen.length === shown.length,
          }}
        />
      )}
      {list.more && (
        <div className="row">
          <Button onClick={list.readMore}>Read more</Button>
          <span className="small">
            {list.rows.length.toLocaleString("en-US")} of {list.total.toLocaleString("en-US")} are
            here; filters see only these.
          </span>
        </div>
      )}
    </Page>
  );
}

function Filters({
  search,
  rows,
  change,
}: {
  search: InstanceSearch;
  rows: Instance[];
  change: (more: Partial<Record<keyof InstanceSearch, unknown>>) => void;
}) {
  const regions = useMemo(() => [...new Set(rows.map((one) => one.region))].sort(), [rows]);
  const tags = useMemo(
    () =>
      [
        ...new Set(
          rows.flatMap((one) => Object.entries(one.tags).map(([name, value]) => `${name}:${value}`)),
        ),
      ].sort(),
    [rows],
  );
  const kept = (known: string[], value: string | undefined) =>
    value === undefined || known.includes(value) ? known : [value, ...known];
  return (
    <div className="fields" role="search">
      <FilterField
        value={search.q ?? ""}
        placeholder="Name, ID, product, key"
        change={(q) => change({ q: q || undefined })}
      />
      <SelectField
        label="Status"
        value={search.status ?? ""}
        onChange={(event) => change({ status: event.currentTarget.value || undefined })}
      >
        <option value="">Any</option>
        {statusValues.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </SelectField>
      <SelectField
        label="Region"
        value={search.region ?? ""}
        onChange={(event) => change({ region: event.currentTarget.value || undefined })}
      >
        <option value="">Any</option>
        {kept(regions, search.region).map((one) => (
          <option key={one}>{one}</option>
        ))}
      </SelectField>
      <SelectField
        label="Billing"
        value={search.mode ?? ""}
        onChange={(event) => change({ mode: event.currentTarget.value || undefined })}
      >
        <option value="">Any</option>
        <option value="onDemand">On demand</option>
        <option value="spot">Spot</option>
      </SelectField>
      <SelectField
        label="Tag"
        value={search.tag ?? ""}
        onChange={(event) => change({ tag: event.currentTarget.value || undefined })}
      >
        <option value="">Any</option>
        {kept(tags, search.tag).map((one) => (
          <option key={one}>{one}</option>
        ))}
      </SelectField>
      <span className="field">
        <span className="small">History</span>
        <Check
          label="Ended ones too"
          checked={search.ended === true}
          onChange={(event) => change({ ended: event.currentTarget.checked || undefined })}
        />
      </span>
    </div>
  );
}

function Bulk({ chosen, clear }: { chosen: Instance[]; clear: () => void }) {
  const [verb, setVerb] = useState<"stop" | "delete" | null>(null);
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<Map<string, Error>>(new Map());
  const write = useRefusal("write");
  const usable = (one: Verb) => chosen.filter((each) => refusal(one, each) === null);
  const why = (one: Verb) =>
    write ??
    (usable(one).length > 0
      ? null
      : chosen.length === 0
        ? "Select instances first"
        : `None of the selected can be ${one === "stop" ? "stopped" : "deleted"} now`);
  const run = async () => {
    if (verb === null) return;
    setBusy(true);
    const failures = await actOnAll(verb, usable(verb).map(rowKey));
    setBusy(false);
    setFailed(failures);
    setVerb(null);
    if (failures.size === 0) clear();
  };
  const name = (id: string) => chosen.find((one) => one.id === id)?.name ?? id;
  const targets = verb === null ? [] : usable(verb);
  return (
    <>
      <div className="row">
        {chosen.length > 0 && <span className="small">{chosen.length} selected</span>}
        <Button refusal={why("stop")} onClick={() => setVerb("stop")}>
          Stop
        </Button>
        <Button kind="danger" refusal={why("delete")} onClick={() => setVerb("delete")}>
          Delete
        </Button>
      </div>
      {failed.size > 0 && (
        <Notice kind="bad" title={`${plural(failed.size, "request")} failed`}>
          <ul>
            {[...failed].map(([id, error]) => (
              <li key={id}>
                {name(id)}: {error.message}
              </li>
            ))}
          </ul>
        </Notice>
      )}
      <Question
        open={verb !== null}
        close={() => setVerb(null)}
        title={`${verb === "delete" ? "Delete" : "Stop"} ${plural(targets.length, "instance")}?`}
        verb={verb === "delete" ? `Delete ${targets.length}` : `Stop ${targets.length}`}
        danger={verb === "delete"}
        busy={busy}
        error={null}
        act={() => void run()}
      >
        <p>{verb && consequence(verb, targets)}</p>
        <p className="small quiet">
          {targets
            .slice(0, 8)
            .map((one) => one.name)
            .join(", ")}
          {targets.length > 8 && ` and ${targets.length - 8} more`}
          {chosen.length > targets.length &&
            `. ${chosen.length - targets.length} selected are left as they are.`}
        </p>
      </Question>
    </>
  );
}

function useColumns(): Column<Instance>[] {
  const time = (value: string | undefined) => (value === undefined ? Infinity : Date.parse(value));
  const stops = useCallback((one: Instance) => time(one.stopsAt), []);
  return useMemo<Column<Instance>[]>(
    () => [
      {
        id: "name",
        title: "Name",
        head: true,
        order: (a, b) => a.name.localeCompare(b.name),
        cell: (one) => (
          <>
            <Link
              to="/instances/$instanceId"
              params={{ instanceId: one.id }}
              className="clip"
              title={one.name}
              dir="auto"
            >
              {one.name}
            </Link>
            <Tags tags={one.tags} />
          </>
        ),
      },
      {
        id: "status",
        title: "Status",
        order: (a, b) => a.status.localeCompare(b.status),
        cell: (one) => <Status status={one.status} word={one.upstreamStatus} />,
      },
      {
        id: "product",
        title: "Product",
        from: "medium",
        order: (a, b) => a.productName.localeCompare(b.productName) || a.gpuNum - b.gpuNum,
        cell: (one) => `${one.productName} × ${one.gpuNum}`,
      },
      {
        id: "region",
        title: "Region",
        from: "wide",
        order: (a, b) => a.region.localeCompare(b.region),
        cell: (one) => <span className="nowrap">{one.region}</span>,
      },
      {
        id: "mode",
        title: "Billing",
        from: "widest",
        cell: (one) => (one.billingMode === "spot" ? "spot" : "on demand"),
      },
      {
        id: "price",
        title: "Price",
        numeric: true,
        order: (a, b) => (a.hourlyPrice ?? 0) - (b.hourlyPrice ?? 0),
        cell: (one) => (one.hourlyPrice === undefined ? "–" : perHour(one.hourlyPrice)),
      },
      {
        id: "cost",
        title: "Cost so far",
        numeric: true,
        from: "medium",
        order: (a, b) => (a.cost?.accrued ?? 0) - (b.cost?.accrued ?? 0),
        cell: (one) => <CostCell one={one} />,
      },
      {
        id: "stops",
        title: "Stops",
        from: "medium",
        order: (a, b) => stops(a) - stops(b) || 0,
        cell: (one) =>
          one.stopsAt === undefined ? (
            <span className="quiet">no limit</span>
          ) : (
            <Distance at={one.stopsAt} />
          ),
      },
      {
        id: "age",
        title: "Age",
        from: "wide",
        order: (a, b) => b.createdAt.localeCompare(a.createdAt),
        cell: (one) => <Age since={one.createdAt} />,
      },
      {
        id: "by",
        title: "Created by",
        from: "widest",
        cell: (one) => (
          <span className="clip" title={one.createdBy?.name}>
            {one.createdBy?.name ?? "adopted"}
          </span>
        ),
      },
    ],
    [stops],
  );
}

function CostCell({ one }: { one: Instance }) {
  return <>{costNow(one, useNow())}</>;
}

function Age({ since }: { since: string }) {
  return (
    <time dateTime={since} className="nowrap">
      {span(useNow() - Date.parse(since))}
    </time>
  );
}

function Tags({ tags }: { tags: Record<string, string> }) {
  const text = Object.entries(tags)
    .map(([name, value]) => `${name}:${value}`)
    .join(", ");
  return text === "" ? null : (
    <span className="clip small quiet" title={text} dir="auto">
      {text}
    </span>
  );
}
