// SPDX-License-Identifier: Apache-2.0
import { useId, type ButtonHTMLAttributes, type ReactNode } from "react";

import "./button.css";

interface Props extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "disabled"> {
  kind?: "plain" | "primary" | "danger";
  busy?: boolean;
  /** Why the button does nothing now. It stays in the order of focus, so that it can be read. */
  refusal?: string | null;
  children: ReactNode;
}

export function Button({ kind = "plain", busy = false, refusal = null, children, ...rest }: Props) {
  const reason = useId();
  const off = busy || refusal !== null;
  return (
    <span className="button-place">
      <button
        type="button"
        {...rest}
        className={`button ${kind}`}
        aria-disabled={off || undefined}
        aria-busy={busy || undefined}
        aria-describedby={refusal === null ? rest["aria-describedby"] : reason}
        onClick={(event) => {
          if (off) event.preventDefault();
          else rest.onClick?.(event);
        }}
      >
        {children}
      </button>
      {refusal !== null && (
        <span id={reason} role="tooltip" className="button-reason">
          {refusal}
        </span>
      )}
    </span>
  );
}
