// SPDX-License-Identifier: Apache-2.0
// The only module that talks to the server: calls typed by its OpenAPI document.
import createClient from "openapi-fetch";

import type { components, paths } from "../../generated/novitai";
import { ApiError, Unreachable, isEnvelope } from "./errors";

export type Schemas = components["schemas"];

export const client = createClient<paths, "application/json">({ baseUrl: window.location.origin });

interface Result<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** Return the body of a successful response; raise `ApiError` or `Unreachable` otherwise. */
export async function answer<T>(call: Promise<Result<T>>): Promise<T> {
  const { data } = await whole(call);
  return data as T;
}

/** As `answer`, with the response, for its headers. */
export async function whole<T>(call: Promise<Result<T>>): Promise<{ data: T; response: Response }> {
  let result: Result<T>;
  try {
    result = await call;
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new Unreachable();
  }
  const { data, error, response } = result;
  if (response.ok) return { data: data as T, response };
  throw new ApiError(
    response.status,
    isEnvelope(error)
      ? error.error
      : { code: `HTTP_${response.status}`, message: response.statusText || "The request failed" },
    Number(response.headers.get("Retry-After") ?? 0),
  );
}

/** Make the header that lets the server recognise a repeated request. */
export function once(): { "Idempotency-Key": string } {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const text = Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
  return { "Idempotency-Key": `dashboard-${text}` };
}

interface Page {
  nextCursor?: string;
}

/** Read pages of a list until it ends or has `most` rows. */
export async function allPages<P extends Page, R>(
  read: (cursor: string | undefined) => Promise<P>,
  rows: (page: P) => R[],
  most: number,
): Promise<{ rows: R[]; more: boolean }> {
  const found: R[] = [];
  let cursor: string | undefined;
  do {
    const page = await read(cursor);
    found.push(...rows(page));
    cursor = page.nextCursor;
  } while (cursor !== undefined && found.length < most);
  return { rows: found, more: cursor !== undefined };
}
