// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from "react";

import { ended, queryClient } from "../api/queries";
import { Skeleton } from "../design/Loading";
import { Problem } from "../design/Problem";
import { unfollow } from "../live/live";
import { LogIn } from "../session/LogIn";
import { forget, logIn, takeCode, useSession } from "../session/session";
import { Shell } from "./Shell";

ended.session = forget;
const code = takeCode();
/** One exchange of the code, also if React mounts the page twice. */
const exchange = code === null ? null : logIn({ code });
exchange?.catch(() => undefined);

/** Show the log-in page or the dashboard. */
export function Gate() {
  const [wrong, setWrong] = useState<Error | null>(null);
  const [exchanged, setExchanged] = useState(exchange === null);
  useEffect(() => {
    exchange?.catch((error: Error) => setWrong(error)).finally(() => setExchanged(true));
    const pasted = () => {
      const late = takeCode();
      if (late === null) return;
      // What the key before was shown may not be for this one, so the page begins again.
      logIn({ code: late }).then(() => window.location.reload(), setWrong);
    };
    window.addEventListener("hashchange", pasted);
    return () => window.removeEventListener("hashchange", pasted);
  }, []);
  if (!exchanged) return <Waiting />;
  return <Inside wrong={wrong} />;
}

function Inside({ wrong }: { wrong: Error | null }) {
  const session = useSession();
  const loggedIn = session.data != null;
  useEffect(() => {
    if (loggedIn) return;
    unfollow();
    // The next key may see other things.
    queryClient.removeQueries({ predicate: (query) => query.queryKey[0] !== "session" });
  }, [loggedIn]);
  if (session.data === undefined) {
    return session.error ? (
      <main className="log-in">
        <Problem
          error={session.error}
          title="The server cannot be reached"
          retry={() => void session.refetch()}
        />
      </main>
    ) : (
      <Waiting />
    );
  }
  return session.data === null ? <LogIn wrong={wrong} /> : <Shell session={session.data} />;
}

function Waiting() {
  return (
    <main className="log-in">
      <h1>novitai</h1>
      <Skeleton lines={4} />
    </main>
  );
}
