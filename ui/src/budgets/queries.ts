// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";

import { allPages, answer, client } from "../api/client";

export function useBudgets() {
  return useQuery({
    queryKey: ["budgets"],
    queryFn: ({ signal }) =>
      allPages(
        (cursor) =>
          answer(
            client.GET("/api/budgets", {
              params: { query: { limit: 200, ...(cursor !== undefined && { cursor }) } },
              signal,
            }),
          ),
        (page) => page.budgets,
        1000,
      ),
  });
}
