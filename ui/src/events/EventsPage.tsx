// SPDX-License-Identifier: Apache-2.0
import { getRouteApi } from "@tanstack/react-router";

import { Button } from "../design/Button";
import { FilterField } from "../design/Field";
import { plural } from "../design/format";
import { Skeleton } from "../design/Loading";
import { Problem } from "../design/Problem";
import type { LiveEvent } from "../live/stream";
import { Page } from "../shell/Page";
import { EventTable } from "./EventTable";
import { useEvents } from "./queries";

const route = getRouteApi("/events");
const PAGE = 200;

export function EventsPage() {
  const { q } = route.useSearch();
  const navigate = route.useNavigate();
  const events = useEvents(PAGE);
  const rows = events.rows.filter((one) => has(one, q));
  return (
    <Page title="Events">
      {events.error && (
        <Problem
          error={events.error}
          reading
          title="The log could not be read"
          retry={() => void events.refetch()}
        />
      )}
      <div className="fields">
        <FilterField
          placeholder="Type, instance, key"
          value={q ?? ""}
          change={(text) => void navigate({ search: text ? { q: text } : {}, replace: true })}
        />
      </div>
      <p className="small" role="status">
        {events.loaded &&
          `${plural(rows.length, "event")}${q ? ` of ${events.rows.length.toLocaleString("en-US")}` : ""}, newest first; new ones appear by themselves`}
      </p>
      {rows.length > 0 ? (
        <EventTable events={rows} />
      ) : events.loaded ? (
        <p className="panel empty">
          {q ? "None of those that were read matches." : "The log is empty."}
        </p>
      ) : (
        !events.error && <Skeleton lines={9} />
      )}
      {events.more && (
        <div className="row">
          <Button busy={events.reading} onClick={events.readMore}>
            Read more
          </Button>
          <span className="small">Older ones are in the log; the filter sees only these.</span>
        </div>
      )}
    </Page>
  );
}

function has(event: LiveEvent, q: string | undefined): boolean {
  if (!q) return true;
  const wanted = q.toLowerCase();
  const { id, name } = event.data as { id?: unknown; name?: unknown };
  return [event.type, id, name, event.actor?.name, event.actor?.keyId, event.actor?.system].some(
    (one) => typeof one === "string" && one.toLowerCase().includes(wanted),
  );
}
