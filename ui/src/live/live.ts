// SPDX-License-Identifier: Apache-2.0
import { useSyncExternalStore } from "react";

import { queryClient } from "../api/queries";
import { isLoggedIn } from "../session/session";
import { drop, take } from "./apply";
import { Stream, type Connection } from "./stream";

const stream = new Stream({
  event: take,
  gap: () => void queryClient.invalidateQueries(),
  refused: isLoggedIn,
});

export function follow(cursor: string): void {
  stream.start(cursor);
}

export function unfollow(): void {
  stream.stop();
  drop();
}

export function useConnection(): Connection {
  return useSyncExternalStore(stream.subscribe, stream.get);
}
