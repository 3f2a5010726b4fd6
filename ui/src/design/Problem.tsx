// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, type ReactNode } from "react";

import { ApiError } from "../api/errors";
import { Button } from "./Button";
import "./notice.css";

interface Props {
  error: Error;
  title?: string;
  retry?: (() => void) | undefined;
  reading?: boolean;
}

/**
 * An error with its code, its wrong fields and the request ID. That of an action scrolls into view;
 * that of a reading leaves the page where it is, because several parts may fail at once.
 */
export function Problem({
  error,
  reading = false,
  title = reading ? "This could not be read" : "That did not work",
  retry,
}: Props) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!reading) box.current?.scrollIntoView({ block: "nearest" });
  }, [error, reading]);
  const known = error instanceof ApiError ? error : null;
  return (
    <div ref={box} className="notice bad" role="alert">
      <strong>{title}</strong>
      <p>{error.message}</p>
      {known && known.fields.length > 0 && (
        <ul>
          {known.fields.map((one) => (
            <li key={one.field}>
              <code>{one.field}</code>: {one.message}
            </li>
          ))}
        </ul>
      )}
      {known && (
        <p className="small">
          <code>{known.code}</code>
          {known.requestId && (
            <>
              {" "}
              · request <code>{known.requestId}</code>
            </>
          )}
        </p>
      )}
      {retry && (
        <div>
          <Button onClick={retry}>Try again</Button>
        </div>
      )}
    </div>
  );
}

export function Notice({
  kind,
  title,
  children,
}: {
  kind: "bad" | "warn" | "busy" | "good";
  title: string;
  children?: ReactNode;
}) {
  return (
    <div className={`notice ${kind}`}>
      <strong>{title}</strong>
      {children}
    </div>
  );
}
