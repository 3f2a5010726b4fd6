// SPDX-License-Identifier: Apache-2.0

/** Whether a key belongs to a field or a dialog rather than to the page. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target.closest("[role=dialog], [role=alertdialog]") !== null) return true;
  if (target instanceof HTMLInputElement) return target.type !== "checkbox";
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** What was typed after `/` while the page with the filter was still loading; null at other times. */
let early: string | null = null;

export function awaitFilter(): void {
  early = "";
}

/** Keep a key for the filter that is awaited; return whether one is. */
export function keepForFilter(event: KeyboardEvent): boolean {
  if (early === null) return false;
  if (event.key === "Escape") early = null;
  else if (event.key === "Backspace") early = early.slice(0, -1);
  else if (event.key.length === 1) early += event.key;
  else return false;
  return true;
}

/** The text for the filter that has appeared, or null if none was awaited. */
export function takeFilter(): string | null {
  const text = early;
  early = null;
  return text;
}
