// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useId } from "react";

import { ApiError } from "../api/errors";
import { Button } from "../design/Button";
import { Problem } from "../design/Problem";
import { logIn } from "./session";
import "./log-in.css";

/** The form for the API key. `wrong` is the error of a one-time code that was tried before. */
export function LogIn({ wrong }: { wrong: Error | null }) {
  const field = useId();
  const help = useId();
  const entry = useMutation({ mutationFn: (key: string) => logIn({ key }) });
  const error = entry.error ?? (entry.isIdle ? wrong : null);
  return (
    <main className="log-in">
      <h1>novitai</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const key = new FormData(event.currentTarget).get("key");
          if (typeof key === "string" && key.trim() !== "") entry.mutate(key.trim());
        }}
      >
        {error && <Problem error={error} title={title(error, entry.isIdle)} />}
        <label htmlFor={field}>API key</label>
        <input
          id={field}
          name="key"
          type="password"
          autoComplete="off"
          autoFocus
          required
          spellCheck={false}
          aria-describedby={help}
          placeholder="nvt_…"
        />
        <p id={help} className="quiet">
          The key is sent once and not kept in this browser. <code>novitai dashboard</code> opens
          this page logged in.
        </p>
        <Button type="submit" kind="primary" busy={entry.isPending}>
          Log in
        </Button>
      </form>
    </main>
  );
}

function title(error: Error, ofCode: boolean): string {
  if (!(error instanceof ApiError) || error.status !== 401) return "You are not logged in";
  return ofCode ? "The link was used already or is too old" : "The server does not accept this key";
}
