// SPDX-License-Identifier: Apache-2.0
import { atDay, inFull, span } from "./format";
import { useNow } from "./now";

/** A moment; its whole date is in the title. */
export function Moment({ at }: { at: string }) {
  return (
    <time dateTime={at} title={inFull(at)} className="nowrap number">
      {atDay(at)}
    </time>
  );
}

/** How long ago or ahead a moment is. */
export function Distance({ at }: { at: string }) {
  const away = Date.parse(at) - useNow();
  return (
    <time dateTime={at} title={inFull(at)} className="nowrap number">
      {away > 0 ? `in ${span(away)}` : `${span(-away)} ago`}
    </time>
  );
}
