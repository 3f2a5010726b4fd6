// SPDX-License-Identifier: Apache-2.0
import { useInfiniteQuery, useQuery, type InfiniteData } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";

import { allPages, answer, client, whole, type Schemas } from "../api/client";
import { useReadMore } from "../api/readMore";
import { follow } from "../live/live";

export type Instance = Schemas["Instance"];

const FIRST = 100;
const NEXT = 1000;
/** How many instances the list reads by itself. */
export const MOST = 10_000;

/** The instances, newest first: the first page at once, the others one after the other. */
export function useInstances(ended: boolean) {
  const query = useInfiniteQuery({
    queryKey: ["instances", { ended }],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => {
      const { data, response } = await whole(
        client.GET("/api/instances", {
          params: {
            query: {
              limit: pageParam === undefined ? FIRST : NEXT,
              ...(pageParam !== undefined && { cursor: pageParam }),
              ...(ended && { includeTerminated: true }),
            },
          },
          signal,
        }),
      );
      const cursor = response.headers.get("Event-Cursor");
      if (cursor !== null) follow(cursor);
      return data;
    },
    getNextPageParam: (page) => page.nextCursor,
    staleTime: Infinity,
  });
  const { data, hasNextPage, isFetching, error, fetchNextPage } = query;
  const rows = useMemo(() => flat(data), [data]);
  const { readMore } = useReadMore(query, data?.pages.length ?? 0);
  const reading = hasNextPage && rows.length < MOST && error === null;
  useEffect(() => {
    if (reading && !isFetching) void fetchNextPage();
  }, [reading, isFetching, fetchNextPage]);
  return {
    rows,
    total: data?.pages.at(-1)?.total ?? 0,
    loaded: data !== undefined,
    reading,
    more: hasNextPage && !reading,
    readMore,
    error,
    refetch: query.refetch,
  };
}

function flat(data: InfiniteData<Schemas["InstanceList"]> | undefined): Instance[] {
  const seen = new Set<string>();
  return (data?.pages ?? []).flatMap((page) =>
    page.instances.filter((one) => !seen.has(one.id) && seen.add(one.id)),
  );
}

export function useInstance(id: string) {
  return useQuery({
    queryKey: ["instance", id],
    queryFn: ({ signal }) =>
      answer(
        client.GET("/api/instances/{instanceId}", { params: { path: { instanceId: id } }, signal }),
      ),
  });
}

export function useInstanceCost(id: string) {
  return useQuery({
    queryKey: ["instance", id, "cost"],
    queryFn: ({ signal }) =>
      answer(
        client.GET("/api/instances/{instanceId}/cost", {
          params: { path: { instanceId: id } },
          signal,
        }),
      ),
  });
}

/** All events of an instance, oldest first. */
export function useInstanceEvents(id: string) {
  return useQuery({
    queryKey: ["instance", id, "events"],
    queryFn: ({ signal }) =>
      allPages(
        (cursor) =>
          answer(
            client.GET("/api/instances/{instanceId}/events", {
              params: {
                path: { instanceId: id },
                query: { limit: 500, ...(cursor !== undefined && { cursor }) },
              },
              signal,
            }),
          ),
        (page) => page.events,
        5000,
      ),
  });
}

export function useInstanceOperations(id: string) {
  return useQuery({
    queryKey: ["instance", id, "operations"],
    queryFn: ({ signal }) =>
      answer(
        client.GET("/api/operations", { params: { query: { instanceId: id, limit: 50 } }, signal }),
      ),
  });
}

export function useInstanceDeliveries(id: string) {
  return useQuery({
    queryKey: ["instance", id, "deliveries"],
    queryFn: ({ signal }) =>
      allPages(
        (cursor) =>
          answer(
            client.GET("/api/instances/{instanceId}/deliveries", {
              params: {
                path: { instanceId: id },
                query: { limit: 500, ...(cursor !== undefined && { cursor }) },
              },
              signal,
            }),
          ),
        (page) => page.deliveries,
        2000,
      ),
  });
}

export function useUtilization(id: string, running: boolean) {
  return useQuery({
    queryKey: ["utilization", id],
    enabled: running,
    queryFn: ({ signal }) =>
      answer(
        client.GET("/api/instances/{instanceId}/utilization", {
          params: { path: { instanceId: id } },
          signal,
        }),
      ),
  });
}
