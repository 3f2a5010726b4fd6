// SPDX-License-Identifier: Apache-2.0
import { useEffect, useId, useRef, useState, type ComponentProps, type ReactNode } from "react";

import { takeFilter } from "../shell/keys";
import "./field.css";

interface Shared {
  label: string;
  /** The unit or a rule, below the field. */
  hint?: ReactNode;
  error?: string | undefined;
}

function About({ id, hint, error }: { id: string; hint?: ReactNode; error?: string | undefined }) {
  if (error === undefined && hint === undefined) return null;
  return (
    <span id={id} className={error === undefined ? "quiet small" : "field-error small"}>
      {error ?? hint}
    </span>
  );
}

export function TextField({
  label,
  hint,
  error,
  ...rest
}: Shared & ComponentProps<"input">) {
  const id = useId();
  const about = useId();
  return (
    <span className="field">
      <label htmlFor={id}>{label}</label>
      <input
        {...rest}
        id={id}
        aria-invalid={error !== undefined || undefined}
        aria-describedby={hint === undefined && error === undefined ? undefined : about}
      />
      <About id={about} hint={hint} error={error} />
    </span>
  );
}

export function SelectField({
  label,
  hint,
  error,
  children,
  ...rest
}: Shared & ComponentProps<"select">) {
  const id = useId();
  const about = useId();
  return (
    <span className="field">
      <label htmlFor={id}>{label}</label>
      <select
        {...rest}
        id={id}
        aria-invalid={error !== undefined || undefined}
        aria-describedby={hint === undefined && error === undefined ? undefined : about}
      >
        {children}
      </select>
      <About id={about} hint={hint} error={error} />
    </span>
  );
}

/** A field of several lines. */
export function TextLines({
  label,
  value,
  change,
}: {
  label: string;
  value: string;
  change: (text: string) => void;
}) {
  return (
    <label className="field">
      <span className="small">{label}</span>
      <textarea
        rows={3}
        spellCheck={false}
        value={value}
        onChange={(event) => change(event.currentTarget.value)}
      />
    </label>
  );
}

export function Check({
  label,
  ...rest
}: { label: ReactNode } & ComponentProps<"input">) {
  return (
    <label className="check">
      <input type="checkbox" {...rest} /> <span>{label}</span>
    </label>
  );
}

/**
 * The text filter of a list. It has what was typed at once, and tells it after a moment or when it
 * loses the focus. `value` may follow later.
 */
export function FilterField({
  value,
  change,
  placeholder,
}: {
  value: string;
  change: (text: string) => void;
  placeholder: string;
}) {
  const [text, setText] = useState(value);
  const input = useRef<HTMLInputElement>(null);
  const latest = useRef(value);
  const tell = useRef(change);
  /** The texts that were told and have not come back as `value` yet, oldest first. */
  const away = useRef<string[]>([]);
  useEffect(() => {
    tell.current = change;
  });
  useEffect(() => {
    const typed = takeFilter();
    if (typed === null) return;
    input.current?.focus();
    setText((old) => old + typed);
  }, []);
  useEffect(() => {
    const echo = away.current.indexOf(value);
    if (echo !== -1) {
      away.current.splice(0, echo + 1);
      return;
    }
    // The address changed by other means, such as the way back.
    away.current = [];
    if (value === latest.current) return;
    latest.current = value;
    setText(value);
  }, [value]);
  const say = (told: string) => {
    if (told === latest.current) return;
    latest.current = told;
    away.current.push(told);
    tell.current(told);
  };
  useEffect(() => {
    const timer = setTimeout(() => say(text), 150);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <TextField
      ref={input}
      label="Filter ( / )"
      data-filter=""
      type="search"
      placeholder={placeholder}
      value={text}
      onChange={(event) => setText(event.currentTarget.value)}
      // A link that is followed next must not be overtaken by the timer.
      onBlur={() => say(text)}
    />
  );
}
