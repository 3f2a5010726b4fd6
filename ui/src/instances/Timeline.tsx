// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from "../api/client";
import { Status } from "../design/Badge";
import { span } from "../design/format";
import { Loaded } from "../design/Loading";
import { useNow } from "../design/now";
import { Moment } from "../design/Time";
import { useInstanceCost, useInstanceEvents, type Instance } from "./queries";
import "./timeline.css";

interface Stay {
  status: Schemas["InstanceStatus"];
  from: number;
  to: number;
}

const WIDTH = 1000;

export function Timeline({ instance }: { instance: Instance }) {
  const events = useInstanceEvents(instance.id);
  const cost = useInstanceCost(instance.id);
  const now = useNow();
  return (
    <section className="panel" aria-labelledby="timeline">
      <h2 id="timeline">Statuses and billed time</h2>
      <Loaded query={events}>
        {({ rows }) => {
          const stays = statusesOf(rows, now);
          const gpu = (cost.data?.spans ?? []).filter((one) => one.kind === "gpu");
          return (
            <>
              <Picture stays={stays} spans={gpu} />
              <ol className="plain timeline-list">
                {stays.map((stay) => (
                  <li key={`${stay.from} ${stay.status}`} className="row">
                    <Status status={stay.status} />
                    <span className="quiet small">
                      from <Moment at={new Date(stay.from).toISOString()} /> for{" "}
                      {span(stay.to - stay.from)}
                    </span>
                  </li>
                ))}
              </ol>
              <p className="small quiet">
                {gpu.length === 0
                  ? "No GPU time was billed."
                  : `Striped: GPUs billed, ${span(billed(gpu, now))} together.`}
              </p>
            </>
          );
        }}
      </Loaded>
    </section>
  );
}

function statusesOf(events: Schemas["Event"][], now: number): Stay[] {
  const stays: Stay[] = [];
  for (const event of events) {
    const status = (event.data as Partial<Instance>).status;
    if (status === undefined || stays.at(-1)?.status === status) continue;
    const from = Date.parse(event.at);
    const last = stays.at(-1);
    if (last) last.to = from;
    stays.push({ status, from, to: Math.max(now, from) });
  }
  const last = stays.at(-1);
  if (last && (last.status === "terminated" || last.status === "released")) last.to = last.from;
  return stays;
}

function bounds(one: Schemas["Span"], now: number): [number, number] {
  const from = Date.parse(one.beganBy ?? one.beganAfter);
  return [from, Math.max(from, Date.parse(one.endedBy ?? "") || now)];
}

function billed(spans: Schemas["Span"][], now: number): number {
  return spans.reduce((sum, one) => {
    const [from, to] = bounds(one, now);
    return sum + to - from;
  }, 0);
}

function Picture({ stays, spans }: { stays: Stay[]; spans: Schemas["Span"][] }) {
  const now = useNow();
  const begin = stays[0]?.from ?? now;
  const end = Math.max(begin + 1, stays.at(-1)?.to ?? now);
  const at = (time: number) => ((Math.min(end, Math.max(begin, time)) - begin) / (end - begin)) * WIDTH;
  return (
    <svg
      className="timeline"
      viewBox={`0 0 ${WIDTH} 34`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <defs>
        <pattern id="billed" width="8" height="8" patternUnits="userSpaceOnUse">
          <path d="M0 8 8 0" className="timeline-stripe" />
        </pattern>
      </defs>
      {stays.map((stay) => (
        <rect
          key={`${stay.from} ${stay.status}`}
          className={`timeline-stay ${stay.status}`}
          x={at(stay.from)}
          width={Math.max(1, at(stay.to) - at(stay.from))}
          y="0"
          height="20"
        />
      ))}
      {spans.map((one) => {
        const [from, to] = bounds(one, now);
        return (
          <rect
            key={one.beganAfter}
            className="timeline-billed"
            x={at(from)}
            width={Math.max(1, at(to) - at(from))}
            y="22"
            height="12"
          />
        );
      })}
    </svg>
  );
}
