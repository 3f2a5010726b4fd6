// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";

import { answer, client, type Schemas } from "../api/client";
import { bounds, type Period } from "./search";

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function useCostSummary() {
  return useQuery({
    queryKey: ["costs", "summary"],
    queryFn: ({ signal }) =>
      answer(client.GET("/api/costs/summary", { params: { query: { tz: ZONE } }, signal })),
  });
}

export function useCosts(period: Period, by: string, bucket?: "hour" | "day") {
  return useQuery({
    queryKey: ["costs", period, by, bucket ?? ""],
    queryFn: async ({ signal }) =>
      // The route sends CSV too; `Accept` is left as it is, so this is JSON.
      (await answer(
        client.GET("/api/costs", {
          params: {
            query: { ...bounds(period), groupBy: by, tz: ZONE, ...(bucket && { bucket }) },
          },
          signal,
        }),
      )) as Schemas["CostReport"],
  });
}

export async function costsAsCsv(period: Period, by: string): Promise<string> {
  return answer(
    client.GET("/api/costs", {
      params: { query: { ...bounds(period), groupBy: by, bucket: "day", tz: ZONE } },
      headers: { Accept: "text/csv" },
      parseAs: "text",
    }),
  ) as Promise<string>;
}

export function useReconciliation() {
  return useQuery({
    queryKey: ["costs", "reconciliation"],
    queryFn: ({ signal }) => answer(client.GET("/api/costs/reconciliation", { signal })),
  });
}
