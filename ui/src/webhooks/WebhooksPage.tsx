// SPDX-License-Identifier: Apache-2.0
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { allPages, answer, client, once, type Schemas } from "../api/client";
import { Badge } from "../design/Badge";
import { Button } from "../design/Button";
import { Dialog, Question } from "../design/Dialog";
import { plural } from "../design/format";
import { Loaded } from "../design/Loading";
import { Problem } from "../design/Problem";
import { Distance, Moment } from "../design/Time";
import { useRefusal } from "../session/session";
import { Page } from "../shell/Page";
import { MoreVerbs } from "./MoreVerbs";
import { renew } from "./renew";
import { WebhookForm } from "./WebhookForm";

type Webhook = Schemas["Webhook"];

export function WebhooksPage() {
  const write = useRefusal("write");
  const [making, setMaking] = useState(false);
  const query = useQuery({
    queryKey: ["webhooks"],
    queryFn: async ({ signal }) =>
      (
        await allPages(
          (cursor) =>
            answer(
              client.GET("/api/webhooks", {
                params: { query: { limit: 200, ...(cursor !== undefined && { cursor }) } },
                signal,
              }),
            ),
          (page) => page.webhooks,
          1000,
        )
      ).rows,
  });
  return (
    <Page
      title="Webhooks"
      aside={
        <Button kind="primary" refusal={write} onClick={() => setMaking(true)}>
          New webhook
        </Button>
      }
    >
      <Loaded query={query} lines={6}>
        {(rows) =>
          rows.length === 0 ? (
            <p className="panel empty">
              There is no standing webhook. One gets a message at every event that you choose.
            </p>
          ) : (
            <ul className="plain stack">
              {rows.map((one) => (
                <Receiver key={one.id} webhook={one} />
              ))}
            </ul>
          )
        }
      </Loaded>
      <Dialog open={making} close={() => setMaking(false)} title="New webhook">
        {making && <WebhookForm close={() => setMaking(false)} />}
      </Dialog>
    </Page>
  );
}

function Receiver({ webhook }: { webhook: Webhook }) {
  const write = useRefusal("write");
  const [asked, setAsked] = useState(false);
  const params = { path: { webhookId: webhook.id }, header: once() };
  const testing = useMutation({
    mutationFn: () => answer(client.POST("/api/webhooks/{webhookId}/test", { params })),
  });
  const switching = useMutation({
    mutationFn: () =>
      answer(
        client.PATCH("/api/webhooks/{webhookId}", {
          params: { path: { webhookId: webhook.id } },
          body: { enabled: !webhook.enabled },
        }),
      ),
    onSuccess: renew,
  });
  const removing = useMutation({
    mutationFn: () => answer(client.DELETE("/api/webhooks/{webhookId}", { params })),
    onSuccess: () => {
      setAsked(false);
      renew();
    },
  });
  const error = testing.error ?? switching.error;
  const tried = testing.data?.attempt;
  return (
    <li className="panel">
      {error && <Problem error={error} />}
      <div className="row apart">
        <strong dir="ltr">{webhook.url}</strong>
        {!webhook.enabled ? (
          <Badge tone="bad">off{webhook.disabledReason && `: ${webhook.disabledReason}`}</Badge>
        ) : webhook.failingSince ? (
          <Badge tone="warn">failing</Badge>
        ) : (
          <Badge tone="good">on</Badge>
        )}
      </div>
      <p className="small" dir="auto">
        {webhook.description && `${webhook.description} · `}
        {webhook.eventTypes.length === 0
          ? "all events"
          : plural(webhook.eventTypes.length, "event type")}
        {webhook.previousSecretValidUntil && (
          <>
            {" "}
            · the secret before the last signs too until <Moment at={webhook.previousSecretValidUntil} />
          </>
        )}
        {webhook.failingSince && (
          <>
            {" "}
            · failing since <Distance at={webhook.failingSince} />
          </>
        )}
      </p>
      {tried && (
        <p role="status" className={testing.data?.delivered ? "" : "field-error"} dir="auto">
          {testing.data?.delivered ? "Delivered" : "Not delivered"}: {tried.statusCode ?? tried.error},
          in {tried.durationMs} ms
        </p>
      )}
      <div className="row">
        <Button refusal={write} busy={testing.isPending} onClick={() => testing.mutate()}>
          Send a test
        </Button>
        <Button refusal={write} busy={switching.isPending} onClick={() => switching.mutate()}>
          {webhook.enabled ? "Switch off" : "Switch on"}
        </Button>
        <MoreVerbs webhook={webhook} />
        <Button
          kind="danger"
          refusal={write}
          onClick={() => {
            removing.reset();
            setAsked(true);
          }}
        >
          Delete
        </Button>
      </div>
      <Question
        open={asked}
        close={() => setAsked(false)}
        title="Delete this webhook?"
        verb="Delete"
        danger
        busy={removing.isPending}
        error={removing.error}
        act={() => removing.mutate()}
      >
        <p dir="ltr">{webhook.url}</p>
        <p>Messages that were not delivered yet are not sent.</p>
      </Question>
    </li>
  );
}
