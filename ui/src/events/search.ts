// SPDX-License-Identifier: Apache-2.0
import { text } from "../instances/filters";

export interface EventSearch {
  q?: string;
}

export function eventSearch(search: Record<string, unknown>): EventSearch {
  const q = text(search.q);
  return q ? { q } : {};
}
