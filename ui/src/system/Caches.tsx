// SPDX-License-Identifier: Apache-2.0
import { useMutation, useQuery } from "@tanstack/react-query";

import { answer, client, once, type Schemas } from "../api/client";
import { queryClient } from "../api/queries";
import { Button } from "../design/Button";
import { Loaded } from "../design/Loading";
import { Problem } from "../design/Problem";
import { Table, type Column } from "../design/Table";
import { useRefusal } from "../session/session";

type Cache = Schemas["CacheStats"] & { name: string };

/** The caches of the process that answers. Clearing one loses nothing; it fills again. */
export function Caches() {
  const admin = useRefusal("admin");
  const query = useQuery({
    queryKey: ["caches"],
    queryFn: ({ signal }) => answer(client.GET("/api/cache/stats", { signal })),
  });
  const settled = {
    onSettled: () => void queryClient.invalidateQueries({ queryKey: ["caches"] }),
  };
  const clearing = useMutation({
    mutationFn: (cacheName: string | undefined) =>
      answer(
        client.POST("/api/cache/clear", {
          params: { header: once() },
          body: cacheName === undefined ? {} : { cacheName },
        }),
      ),
    ...settled,
  });
  const cleaning = useMutation({
    mutationFn: () => answer(client.POST("/api/cache/cleanup", { params: { header: once() } })),
    ...settled,
  });
  const error = clearing.error ?? cleaning.error;
  const busy = clearing.isPending || cleaning.isPending;
  const columns: Column<Cache>[] = [
    { id: "name", title: "Cache", head: true, cell: (one) => one.name },
    { id: "size", title: "Entries", numeric: true, cell: (one) => `${one.size} of ${one.maxSize}` },
    {
      id: "hits",
      title: "Hits",
      numeric: true,
      from: "medium",
      cell: (one) => `${Math.round(one.hitRatio * 100)} %`,
    },
    { id: "fresh", title: "Fresh for", numeric: true, from: "medium", cell: (one) => `${one.ttlSeconds} s` },
    {
      id: "clear",
      title: "Actions",
      cell: (one) => (
        <Button
          aria-label={`Clear ${one.name}`}
          refusal={admin}
          busy={busy}
          onClick={() => clearing.mutate(one.name)}
        >
          Clear
        </Button>
      ),
    },
  ];
  return (
    <section className="stack" aria-labelledby="caches">
      <div className="row apart">
        <h2 id="caches">Caches</h2>
        <div className="row">
          <Button refusal={admin} busy={busy} onClick={() => cleaning.mutate()}>
            Remove expired entries
          </Button>
          <Button refusal={admin} busy={busy} onClick={() => clearing.mutate(undefined)}>
            Clear all
          </Button>
        </div>
      </div>
      {error && <Problem error={error} />}
      <p className="small" role="status">
        {clearing.data?.message ?? cleaning.data?.message}
      </p>
      <Loaded query={query}>
        {({ caches }) => (
          <Table
            label="Caches"
            columns={columns}
            rows={Object.entries(caches).map(([name, stats]) => ({ ...stats, name }))}
            rowKey={(one) => one.name}
          />
        )}
      </Loaded>
    </section>
  );
}
