// SPDX-License-Identifier: Apache-2.0

/** The pages, in the order of the navigation, with the letter after `g`. */
export const PLACES = [
  { to: "/", title: "Overview", key: "o" },
  { to: "/instances", title: "Instances", key: "i" },
  { to: "/costs", title: "Costs", key: "c" },
  { to: "/events", title: "Events", key: "e" },
  { to: "/budgets", title: "Budgets", key: "b" },
  { to: "/webhooks", title: "Webhooks", key: "w" },
  { to: "/deliveries", title: "Deliveries", key: "d" },
  { to: "/unmanaged", title: "Unmanaged", key: "u" },
  { to: "/catalogue", title: "Catalogue", key: "p" },
  { to: "/keys", title: "Keys", key: "k" },
  { to: "/system", title: "System", key: "s" },
] as const;
