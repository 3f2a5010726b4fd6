// SPDX-License-Identifier: Apache-2.0
import { queryClient } from "../api/queries";

/** Read the webhooks and their messages again, after a change. */
export function renew(): void {
  void queryClient.invalidateQueries({ queryKey: ["webhooks"] });
  void queryClient.invalidateQueries({ queryKey: ["deliveries"] });
}
