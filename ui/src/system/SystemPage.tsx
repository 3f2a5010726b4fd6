// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";

import { answer, client, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { Badge } from "../design/Badge";
import { Button } from "../design/Button";
import { span } from "../design/format";
import { Loaded } from "../design/Loading";
import { Moment } from "../design/Time";
import { Page } from "../shell/Page";
import { Caches } from "./Caches";
import { Sync } from "./Sync";

const NAMES: Record<keyof Schemas["Health"]["services"], string> = {
  novitaApi: "Novita's API",
  jobQueue: "Job queue",
  cache: "Caches",
};

export function SystemPage() {
  const health = useQuery({
    queryKey: ["health"],
    retry: false,
    queryFn: async ({ signal }) => {
      // An unhealthy server sends the same body with the status 503.
      const { data, error, response } = await client.GET("/health", { signal });
      const found = data ?? (error as unknown as Schemas["Health"] | undefined);
      if (found !== undefined && "services" in found) return found;
      throw new ApiError(response.status, { code: "HEALTH", message: "The health is not known" }, 0);
    },
  });
  const metrics = useQuery({
    queryKey: ["metrics"],
    queryFn: async ({ signal }) =>
      (await answer(
        client.GET("/metrics", { headers: { Accept: "application/json" }, signal }),
      )) as Schemas["Metrics"],
  });
  return (
    <Page
      title="System"
      aside={
        <>
          <a className="button" href="/docs">
            The API
          </a>
          <Sync />
          <Button
            busy={health.isFetching || metrics.isFetching}
            onClick={() => {
              void health.refetch();
              void metrics.refetch();
            }}
          >
            Read again
          </Button>
        </>
      }
    >
      <section className="panel" aria-labelledby="health">
        <h2 id="health">Health</h2>
        <Loaded query={health}>
          {(found) => (
            <>
              <p>
                <Badge tone={found.status === "healthy" ? "good" : "bad"}>{found.status}</Badge> as of{" "}
                <Moment at={found.timestamp} />, up for {span(found.uptime * 1000)}
              </p>
              <dl className="facts">
                {Object.entries(NAMES).map(([service, name]) => (
                  <Service
                    key={service}
                    name={name}
                    state={found.services[service as keyof typeof NAMES]}
                  />
                ))}
                <dt>Memory</dt>
                <dd>{Math.round(found.system.memory.rss)} MB</dd>
                <dt>Requests</dt>
                <dd>
                  {found.performance.requestsPerMinute.toFixed(1)} a minute, on average in{" "}
                  {found.performance.averageResponseTime.toFixed(1)} ms
                </dd>
                <dt>Jobs</dt>
                <dd>{found.performance.jobProcessingRate.toFixed(1)} a minute</dd>
              </dl>
            </>
          )}
        </Loaded>
      </section>
      <section className="panel" aria-labelledby="metrics">
        <h2 id="metrics">This process</h2>
        <Loaded query={metrics} lines={6}>
          {({ data }) => (
            <dl className="facts number">
              <dt>Requests served</dt>
              <dd>{data.requests.total.count.toLocaleString("en-US")}</dd>
              <dt>Jobs done, failed</dt>
              <dd>
                {data.jobs.total.processed.toLocaleString("en-US")},{" "}
                {data.jobs.total.failed.toLocaleString("en-US")}
              </dd>
              <dt>Jobs waiting</dt>
              <dd>{data.jobs.total.queueSize.toLocaleString("en-US")}</dd>
              <dt>Cache hits</dt>
              <dd>{Math.round(data.cache.hitRatio * 100)} %</dd>
            </dl>
          )}
        </Loaded>
        <p className="small quiet">
          All figures are at <code>/metrics</code>, for Prometheus.
        </p>
      </section>
      <Caches />
    </Page>
  );
}

function Service({ name, state }: { name: string; state: "up" | "down" }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>
        <Badge tone={state === "up" ? "good" : "bad"}>{state}</Badge>
      </dd>
    </>
  );
}
