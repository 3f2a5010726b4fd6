// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";

import { allPages, answer, client } from "../api/client";

export function useUnmanaged() {
  return useQuery({
    queryKey: ["unmanaged"],
    queryFn: ({ signal }) =>
      allPages(
        (cursor) =>
          answer(
            client.GET("/api/instances/unmanaged", {
              params: { query: { limit: 500, ...(cursor !== undefined && { cursor }) } },
              signal,
            }),
          ),
        (page) => page.instances,
        5000,
      ),
  });
}
