// SPDX-License-Identifier: Apache-2.0
import type { Schemas } from "../api/client";

export interface DeliverySearch {
  status?: Schemas["DeliveryStatus"];
}

export function deliverySearch(search: Record<string, unknown>): DeliverySearch {
  const status = (["pending", "delivered", "dead"] as const).find((one) => one === search.status);
  return status ? { status } : {};
}
