// SPDX-License-Identifier: Apache-2.0
// The cache of what the server said. The live stream changes and invalidates it (live/apply.ts);
// nothing is read at intervals.
import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";

import { ApiError, isPassing } from "./errors";

/** Called when the server no longer accepts the session. */
export const ended = { session: (): void => undefined };

function watch(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) ended.session();
}

export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: watch }),
  mutationCache: new MutationCache({ onError: watch }),
  defaultOptions: {
    queries: {
      staleTime: 30_000,
      gcTime: 5 * 60_000,
      refetchOnWindowFocus: false,
      refetchOnReconnect: false,
      retry: (count, error) => count < 3 && isPassing(error),
      retryDelay: (count, error) =>
        error instanceof ApiError && error.retryAfter > 0
          ? error.retryAfter * 1000
          : Math.min(1000 * 2 ** count, 8000),
    },
    mutations: { retry: false },
  },
});
