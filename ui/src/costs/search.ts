// SPDX-License-Identifier: Apache-2.0
import { text } from "../instances/filters";

export const PERIODS = {
  today: "Today",
  week: "Last 7 days",
  month: "This month",
  lastMonth: "Last month",
  quarter: "Last 90 days",
} as const;
export type Period = keyof typeof PERIODS;

export interface CostSearch {
  period?: Period;
  /** `instance`, `product`, `region`, `billingMode`, `key` or `tag:NAME` */
  by?: string;
}

export function costSearch(search: Record<string, unknown>): CostSearch {
  const period = (Object.keys(PERIODS) as Period[]).find((one) => one === search.period);
  const by = text(search.by);
  return { ...(period && { period }), ...(by && { by }) };
}

/** The bounds of a period in the time zone of the browser. */
export function bounds(period: Period, now = new Date()): { from: string; to?: string } {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
  const days = (count: number) =>
    new Date(now.getFullYear(), now.getMonth(), now.getDate() - count).toISOString();
  switch (period) {
    case "today":
      return { from: midnight.toISOString() };
    case "week":
      return { from: days(6) };
    case "month":
      return { from: new Date(now.getFullYear(), now.getMonth(), 1).toISOString() };
    case "lastMonth":
      return {
        from: new Date(now.getFullYear(), now.getMonth() - 1, 1).toISOString(),
        to: new Date(now.getFullYear(), now.getMonth(), 1).toISOString(),
      };
    case "quarter":
      return { from: days(89) };
  }
}

/** When the hours of today, or the days of a longer period, begin; in seconds since 1970. */
export function steps(period: Period, now = new Date()): number[] {
  const { from, to } = bounds(period, now);
  const end = to === undefined ? now : new Date(to);
  const found: number[] = [];
  for (const at = new Date(from); at < end; ) {
    found.push(at.getTime() / 1000);
    if (period === "today") at.setHours(at.getHours() + 1);
    else at.setDate(at.getDate() + 1);
  }
  return found;
}
