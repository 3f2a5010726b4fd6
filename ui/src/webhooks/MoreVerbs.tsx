// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { Button } from "../design/Button";
import { Dialog, Question } from "../design/Dialog";
import { TextField } from "../design/Field";
import { plural } from "../design/format";
import { Problem } from "../design/Problem";
import { useRefusal } from "../session/session";
import { renew } from "./renew";
import { Secret, WebhookForm } from "./WebhookForm";

type Webhook = Schemas["Webhook"];

/** What is seldom done with a webhook: change it, replay events, and give it a new secret. */
export function MoreVerbs({ webhook }: { webhook: Webhook }) {
  const write = useRefusal("write");
  const [open, setOpen] = useState<"change" | "replay" | "rotate" | null>(null);
  const close = () => setOpen(null);
  const rotating = useMutation({
    gcTime: 0,
    mutationFn: () =>
      answer(
        client.POST("/api/webhooks/{webhookId}/rotate", {
          params: { path: { webhookId: webhook.id }, header: once() },
        }),
      ),
    onSuccess: () => {
      close();
      renew();
    },
  });
  return (
    <>
      <Button refusal={write} onClick={() => setOpen("change")}>
        Change
      </Button>
      <Button refusal={write} onClick={() => setOpen("replay")}>
        Replay events
      </Button>
      <Button
        refusal={write}
        onClick={() => {
          rotating.reset();
          setOpen("rotate");
        }}
      >
        New secret
      </Button>
      <Dialog open={open === "change"} close={close} title="Change this webhook">
        {open === "change" && <WebhookForm webhook={webhook} close={close} />}
      </Dialog>
      <Dialog open={open === "replay"} close={close} title="Replay events">
        {open === "replay" && <Replay webhook={webhook} />}
      </Dialog>
      <Question
        open={open === "rotate"}
        close={close}
        title="Give it a new secret?"
        verb="Make a new secret"
        busy={rotating.isPending}
        error={rotating.error}
        act={() => rotating.mutate()}
      >
        <p dir="ltr">{webhook.url}</p>
        <p>The old secret signs its messages too for 24 hours; the receiver must know the new one by then.</p>
      </Question>
      <Dialog open={rotating.data !== undefined} close={rotating.reset} title="The new secret">
        {rotating.data && <Secret secret={rotating.data.secret} />}
      </Dialog>
    </>
  );
}

function Replay({ webhook }: { webhook: Webhook }) {
  const replaying = useMutation({
    mutationFn: (since: string) =>
      answer(
        client.POST("/api/webhooks/{webhookId}/replay", {
          params: { path: { webhookId: webhook.id }, header: once() },
          body: { since },
        }),
      ),
    onSuccess: renew,
  });
  const wrong =
    replaying.error instanceof ApiError ? replaying.error.fields[0]?.message : undefined;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const since = new Date(String(new FormData(event.currentTarget).get("since")));
        if (!Number.isNaN(since.getTime())) replaying.mutate(since.toISOString());
      }}
    >
      {replaying.error && <Problem error={replaying.error} />}
      <p>
        All its events since then are sent again, in order. Messages keep their IDs, so the receiver
        can tell which it has.
      </p>
      <TextField label="Since" name="since" type="datetime-local" required error={wrong} />
      <div className="row">
        <Button type="submit" kind="primary" busy={replaying.isPending}>
          Replay
        </Button>
        <span role="status">
          {replaying.data && `${plural(replaying.data.messages, "message")} will be sent`}
        </span>
      </div>
    </form>
  );
}
