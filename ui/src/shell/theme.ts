// SPDX-License-Identifier: Apache-2.0
// Light, dark, or as the system; the only thing that this browser remembers.
export type Theme = "system" | "light" | "dark";

const NAME = "novitai.theme";

export function theme(): Theme {
  try {
    const kept = window.localStorage.getItem(NAME);
    return kept === "light" || kept === "dark" ? kept : "system";
  } catch {
    return "system"; // storage is blocked
  }
}

export function applyTheme(chosen: Theme = theme()): void {
  document.documentElement.style.colorScheme = chosen === "system" ? "" : chosen;
}

export function keepTheme(chosen: Theme): void {
  applyTheme(chosen);
  try {
    if (chosen === "system") window.localStorage.removeItem(NAME);
    else window.localStorage.setItem(NAME, chosen);
  } catch {
    // Storage is blocked; the choice holds until the page is left.
  }
}
