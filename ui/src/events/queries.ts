// SPDX-License-Identifier: Apache-2.0
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";

import { answer, client } from "../api/client";
import { useReadMore } from "../api/readMore";
import { useInstances } from "../instances/queries";
import { KEPT, LIVE_EVENTS } from "../live/apply";
import { useConnection } from "../live/live";
import type { LiveEvent } from "../live/stream";

/** The events since the tab was opened, newest first. */
function useLiveEvents(): LiveEvent[] {
  const query = useQuery<LiveEvent[]>({
    queryKey: LIVE_EVENTS,
    queryFn: () => [],
    initialData: [],
    staleTime: Infinity,
    gcTime: Infinity,
  });
  return query.data;
}

/** The events, newest first: those of the stream, and below them the log in pages. */
export function useEvents(limit: number) {
  const live = useLiveEvents();
  const list = useInstances(false);
  const { phase } = useConnection();
  const log = useInfiniteQuery({
    queryKey: ["log", limit],
    // The stream begins before the log is read, so no event is in neither.
    enabled: phase !== "off" || list.error !== null,
    staleTime: Infinity,
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) =>
      answer(
        client.GET("/api/events", {
          params: {
            query: { order: "desc", limit, ...(pageParam !== undefined && { cursor: pageParam }) },
          },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.nextCursor,
  });
  const { readMore } = useReadMore(log, log.data?.pages.length ?? 0);
  const known = new Set(live.map((one) => one.id));
  const logged = log.data?.pages.flatMap((page) => page.events) ?? [];
  // The tab forgets old events; if others may have been between, the log has to be read again.
  const newest = logged[0];
  const torn = live.length >= KEPT && newest !== undefined && !known.has(newest.id);
  return {
    rows: torn ? live : [...live, ...logged.filter((one) => !known.has(one.id))],
    loaded: log.data !== undefined,
    more: torn || log.hasNextPage,
    readMore: torn ? () => void log.refetch() : readMore,
    reading: log.isFetching,
    error: log.error,
    refetch: log.refetch,
  };
}
