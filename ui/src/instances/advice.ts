// SPDX-License-Identifier: Apache-2.0

const ADVICE: Record<string, string> = {
  BUDGET_EXCEEDED: "Nothing was bought. Raise the budget, wait for its next period, or choose a cheaper offer.",
  KEY_LIMIT_EXCEEDED: "A limit of the API key does not allow it. Use another key, or a cheaper offer.",
  NO_CAPACITY: "No offer had stock or met the price limit. Try another region or product, or raise the price limit.",
  UPSTREAM_REFUSED: "Correct the reason that Novita gives: balance, quota, image or template.",
  UPSTREAM_UNAVAILABLE: "Novita does not answer. The server goes on trying; see System.",
  READINESS_TIMEOUT: "It did not serve in time. Check the image and the ports of the template, then create it again.",
  MIGRATION_TIMEOUT: "A migration did not end. Delete the instance and create another one.",
  INSTANCE_EXITED: "Its program ended at once. Check the image and the command of the template.",
  INSTANCE_REMOVED: "It was removed at Novita. Create it again.",
  INSTANCE_FAILED: "Novita reported an error of the instance. Delete it and create another one.",
  INSTANCE_GONE: "It no longer exists at Novita. Create another one.",
  START_FAILED: "Start it again; if it stays stopped, delete it and create another one.",
  STOP_FAILED: "It goes on costing. Stop it again, or delete it.",
  STOP_REFUSED: "Novita refused the stop. Delete it if it is not needed.",
  STOP_TIMEOUT: "It did not stop in time and may go on costing. Stop it again, or delete it.",
  DELETE_REFUSED: "Novita refuses the deletion. The server goes on trying; a prepaid instance can only be released.",
  SPOT_RECLAIMED: "Novita took the machine back. Start the instance when there is stock, or rent on demand.",
  GONE: "It was absent from the account. If it reappears, it becomes live again.",
  ACCOUNT_HELD: "The account is held, because instances disappeared in a way that is not believed. See Unmanaged.",
  IDENTITY_UNCONFIRMED: "It is not known whether the instance at Novita belongs to this record. Wait for a listing, or adopt it.",
  ORPHAN_FOUND: "The account has an instance with the name of this record. See Unmanaged.",
  LISTING_INCOMPLETE: "Novita's listing does not add up. The server waits for complete ones.",
};

/** The first thing to do about an error of an instance. */
export function advice(code: string): string {
  return ADVICE[code] ?? "See the events below for what led to it.";
}
