// SPDX-License-Identifier: Apache-2.0
// Who is logged in. The key itself is sent once and kept nowhere; the browser has a cookie that
// scripts cannot read.
import { useQuery } from "@tanstack/react-query";

import { answer, client, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { queryClient } from "../api/queries";

export type Session = Schemas["Session"];
export type Scope = Schemas["Scope"];

const KEY = ["session"];

async function read(): Promise<Session | null> {
  try {
    return await answer(client.GET("/api/session"));
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return null;
    throw error;
  }
}

export function useSession() {
  return useQuery({ queryKey: KEY, queryFn: read, staleTime: Infinity, gcTime: Infinity });
}

/** Log in with an API key or a one-time code. */
export async function logIn(proof: { key: string } | { code: string }): Promise<void> {
  await answer(client.POST("/api/session", { body: proof }));
  await queryClient.fetchQuery({ queryKey: KEY, queryFn: read, staleTime: 0 });
}

export async function logOut(): Promise<void> {
  await answer(client.DELETE("/api/session"));
  queryClient.setQueryData(KEY, null);
}

/** Ask the server; the answer also decides whether the log-in page is shown. */
export async function isLoggedIn(): Promise<boolean> {
  try {
    const session = await read();
    queryClient.setQueryData(KEY, session);
    return session !== null;
  } catch {
    return true;
  }
}

export function forget(): void {
  queryClient.setQueryData(KEY, null);
}

/** Take the one-time code out of the address, so that it stays in no history. */
export function takeCode(): string | null {
  const code = new URLSearchParams(window.location.hash.slice(1)).get("code");
  if (code === null) return null;
  window.history.replaceState(null, "", window.location.pathname + window.location.search);
  return code;
}

const RANK: Record<Scope, number> = { read: 0, write: 1, admin: 2 };

/** Why the present key may not do what needs `scope`, or null if it may. */
export function useRefusal(scope: Scope): string | null {
  const session = useSession().data;
  const has = Math.max(-1, ...(session?.scopes ?? []).map((one) => RANK[one]));
  return has >= RANK[scope] ? null : `The key “${session?.name ?? ""}” lacks the scope ${scope}`;
}
