// SPDX-License-Identifier: Apache-2.0
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";

import { answer, client, type Schemas } from "../api/client";

/** The newest deliveries of a status. */
export function useDeliveries(status: Schemas["DeliveryStatus"]) {
  return useQuery({
    queryKey: ["deliveries", status],
    queryFn: ({ signal }) =>
      answer(
        client.GET("/api/deliveries", {
          params: { query: { limit: 200, status } },
          signal,
        }),
      ),
  });
}

/** All deliveries, or those of a status, newest event first, in pages. */
export function useDeliveryPages(status: Schemas["DeliveryStatus"] | undefined) {
  return useInfiniteQuery({
    queryKey: ["deliveries", "pages", status ?? ""],
    initialPageParam: undefined as string | undefined,
    queryFn: ({ pageParam, signal }) =>
      answer(
        client.GET("/api/deliveries", {
          params: {
            query: {
              limit: 200,
              ...(status && { status }),
              ...(pageParam !== undefined && { cursor: pageParam }),
            },
          },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.nextCursor,
    select: ({ pages }) => {
      // A delivery moves to the next page if others come before it meanwhile.
      const all = pages.flatMap((page) => page.deliveries);
      return { pages: pages.length, rows: [...new Map(all.map((one) => [one.id, one])).values()] };
    },
  });
}
