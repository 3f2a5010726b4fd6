// SPDX-License-Identifier: Apache-2.0
import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";

import { Problem } from "./Problem";
import "./notice.css";

export function Skeleton({ lines = 3 }: { lines?: number }) {
  return (
    <div role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} className={line % 3 === 2 ? "skeleton short" : "skeleton"} />
      ))}
    </div>
  );
}

/**
 * Show a query: a skeleton until it has an answer, the error above, and older data below the
 * error of a later reading.
 */
export function Loaded<T>({
  query,
  lines,
  children,
}: {
  query: Pick<UseQueryResult<T>, "data" | "error" | "refetch">;
  lines?: number;
  children: (data: T) => ReactNode;
}) {
  return (
    <>
      {query.error && (
        <Problem
          error={query.error}
          reading
          retry={() => void query.refetch()}
        />
      )}
      {query.data === undefined
        ? !query.error && <Skeleton {...(lines !== undefined && { lines })} />
        : children(query.data)}
    </>
  );
}
