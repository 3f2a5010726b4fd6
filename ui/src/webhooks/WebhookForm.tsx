// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { webhookEventValues } from "../../generated/values";
import { answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { Button } from "../design/Button";
import { Copy } from "../design/Copy";
import { Check, TextField } from "../design/Field";
import { Problem } from "../design/Problem";
import { renew } from "./renew";

type Webhook = Schemas["Webhook"];

/** The address, the description and the event types of a new webhook, or of one that there is. */
export function WebhookForm({ webhook, close }: { webhook?: Webhook; close: () => void }) {
  const [all, setAll] = useState(webhook === undefined || webhook.eventTypes.length === 0);
  const saving = useMutation({
    gcTime: 0,
    mutationFn: async (body: Schemas["WebhookChange"]): Promise<Partial<Schemas["RevealedWebhook"]>> =>
      webhook === undefined
        ? answer(
            client.POST("/api/webhooks", {
              params: { header: once() },
              body: body as Schemas["NewWebhook"],
            }),
          )
        : answer(
            client.PATCH("/api/webhooks/{webhookId}", {
              params: { path: { webhookId: webhook.id } },
              body,
            }),
          ),
    onSuccess: () => {
      renew();
      if (webhook !== undefined) close();
    },
  });
  if (saving.data?.secret !== undefined) return <Secret secret={saving.data.secret} />;
  const wrong = (name: string) =>
    saving.error instanceof ApiError
      ? saving.error.fields.find((one) => one.field === name)?.message
      : undefined;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        const url = String(form.get("url")).trim();
        const description = String(form.get("description") ?? "").trim();
        const chosen = form.getAll("type") as Schemas["WebhookEventType"][];
        saving.mutate({
          // The shown address lacks a user name and password, so it is sent only if it was changed.
          ...(url !== webhook?.url && { url }),
          ...(description !== ""
            ? { description }
            : webhook !== undefined && { description: null }),
          eventTypes: all ? [] : chosen,
        });
      }}
    >
      {saving.error && <Problem error={saving.error} />}
      <TextField
        label="Address"
        name="url"
        type="url"
        required
        defaultValue={webhook?.url ?? ""}
        error={wrong("url")}
      />
      <TextField
        label="Description"
        name="description"
        defaultValue={webhook?.description ?? ""}
        error={wrong("description")}
      />
      <fieldset className="stack">
        <legend>Events</legend>
        <Check label="All" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} />
        {!all && (
          <div className="choices">
            {webhookEventValues.map((type) => (
              <Check
                key={type}
                name="type"
                value={type}
                label={type}
                defaultChecked={webhook?.eventTypes.includes(type) ?? false}
              />
            ))}
          </div>
        )}
      </fieldset>
      <div>
        <Button type="submit" kind="primary" busy={saving.isPending}>
          {webhook === undefined ? "Create" : "Save"}
        </Button>
      </div>
    </form>
  );
}

export function Secret({ secret }: { secret: string }) {
  return (
    <div className="stack">
      <p>The secret verifies its messages. It is shown now and never again.</p>
      <Copy text={secret} label="the secret" />
    </div>
  );
}
