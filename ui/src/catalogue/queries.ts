// SPDX-License-Identifier: Apache-2.0
import { useQuery } from "@tanstack/react-query";

import { allPages, answer, client } from "../api/client";

const HALF_MINUTE = 30_000;

function page(cursor: string | undefined) {
  return { limit: 500, ...(cursor !== undefined && { cursor }) };
}

export function useProducts(gpuNum = 1) {
  return useQuery({
    queryKey: ["products", gpuNum],
    staleTime: HALF_MINUTE,
    queryFn: async ({ signal }) =>
      (
        await allPages(
          (cursor) =>
            answer(
              client.GET("/api/products", {
                params: { query: { ...page(cursor), gpuNum } },
                signal,
              }),
            ),
          (one) => one.products,
          2000,
        )
      ).rows,
  });
}

export function useTemplates() {
  return useQuery({
    queryKey: ["templates"],
    staleTime: HALF_MINUTE,
    queryFn: async ({ signal }) =>
      (
        await allPages(
          (cursor) =>
            answer(client.GET("/api/templates", { params: { query: page(cursor) }, signal })),
          (one) => one.templates,
          2000,
        )
      ).rows,
  });
}

export function useRegions() {
  return useQuery({
    queryKey: ["regions"],
    staleTime: HALF_MINUTE,
    queryFn: async ({ signal }) =>
      (
        await allPages(
          (cursor) => answer(client.GET("/api/regions", { params: { query: page(cursor) }, signal })),
          (one) => one.regions,
          500,
        )
      ).rows,
  });
}

export function useCatalogue() {
  return { products: useProducts(), templates: useTemplates(), regions: useRegions() };
}
