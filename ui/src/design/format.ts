// SPDX-License-Identifier: Apache-2.0
// Amounts, times and lengths of time as text. Prices always say per what.
const dollars = new Intl.NumberFormat("en-US", {
  style: "currency",
  currency: "USD",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const fine = new Intl.NumberFormat("en-US", {
  style: "currency",
  currency: "USD",
  minimumFractionDigits: 2,
  maximumFractionDigits: 4,
});
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const date = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** USD; small amounts with up to four digits. */
export function money(amount: number): string {
  return Math.abs(amount) < 1 ? fine.format(amount) : dollars.format(amount);
}

export function perHour(amount: number): string {
  return `${money(amount)}/h`;
}

export function atClock(time: number): string {
  return clock.format(time);
}

export function atDate(time: number): string {
  return date.format(time);
}

export function atDay(time: string): string {
  return day.format(new Date(time));
}

export function inFull(time: string): string {
  return full.format(new Date(time));
}

/** A length of time in its two largest units: `2 d 3 h`, `45 s`. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const units: [string, number][] = [
    ["d", 86_400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first === -1) return "0 s";
  const parts: string[] = [];
  let rest = seconds;
  for (const [unit, size] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${unit}`);
  }
  return parts.join(" ");
}

export function minutes(count: number): string {
  return span(count * 60_000);
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;
}
