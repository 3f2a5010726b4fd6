// SPDX-License-Identifier: Apache-2.0
import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { allPages, answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { queryClient } from "../api/queries";
import { Badge } from "../design/Badge";
import { Button } from "../design/Button";
import { Copy } from "../design/Copy";
import { Dialog, Question } from "../design/Dialog";
import { SelectField, TextField } from "../design/Field";
import { minutes, money, perHour } from "../design/format";
import { Loaded } from "../design/Loading";
import { Notice, Problem } from "../design/Problem";
import { Table, type Column } from "../design/Table";
import { Distance, Moment } from "../design/Time";
import { useRefusal, useSession } from "../session/session";
import { Page } from "../shell/Page";

type Key = Schemas["Key"];

function renew(): void {
  void queryClient.invalidateQueries({ queryKey: ["keys"] });
}

export function KeysPage() {
  const admin = useRefusal("admin");
  const [making, setMaking] = useState(false);
  const [leaving, setLeaving] = useState<Key | null>(null);
  const query = useQuery({
    queryKey: ["keys"],
    enabled: admin === null,
    queryFn: async ({ signal }) =>
      (
        await allPages(
          (cursor) =>
            answer(
              client.GET("/api/keys", {
                params: { query: { limit: 500, ...(cursor !== undefined && { cursor }) } },
                signal,
              }),
            ),
          (page) => page.keys,
          5000,
        )
      ).rows,
  });
  const revoking = useMutation({
    mutationFn: (one: Key) =>
      answer(
        client.DELETE("/api/keys/{keyId}", {
          params: { path: { keyId: one.id }, header: once() },
        }),
      ),
    onSuccess: () => {
      setLeaving(null);
      renew();
    },
  });
  const mine = useSession().data?.keyId;
  const columns: Column<Key>[] = [
    {
      id: "name",
      title: "Name",
      head: true,
      cell: (one) => (
        <>
          <span className="clip" title={one.name} dir="auto">
            {one.name}
          </span>
          <code className="small">{one.id}</code>
        </>
      ),
    },
    { id: "scopes", title: "Scopes", cell: (one) => one.scopes.join(", ") },
    {
      id: "state",
      title: "State",
      cell: (one) =>
        one.revokedAt ? (
          <Badge tone="idle">revoked</Badge>
        ) : one.expiresAt && Date.parse(one.expiresAt) < Date.now() ? (
          <Badge tone="idle">expired</Badge>
        ) : (
          <Badge tone="good">valid</Badge>
        ),
    },
    { id: "limits", title: "Limits", from: "wide", cell: (one) => limits(one.limits) },
    {
      id: "used",
      title: "Last used",
      from: "medium",
      cell: (one) => (one.lastUsedAt ? <Distance at={one.lastUsedAt} /> : "never"),
    },
    {
      id: "created",
      title: "Created",
      from: "wide",
      cell: (one) => <Moment at={one.createdAt} />,
    },
    {
      id: "verbs",
      title: "Actions",
      cell: (one) => (
        <Button
          kind="danger"
          refusal={admin ?? (one.revokedAt ? "It is revoked already" : null)}
          onClick={() => {
            revoking.reset();
            setLeaving(one);
          }}
        >
          Revoke
        </Button>
      ),
    },
  ];
  return (
    <Page
      title="Keys"
      aside={
        <Button kind="primary" refusal={admin} onClick={() => setMaking(true)}>
          New key
        </Button>
      }
    >
      {admin !== null ? (
        <Notice kind="warn" title="Only an admin key sees the keys">
          <p dir="auto">{admin}.</p>
        </Notice>
      ) : (
        <Loaded query={query} lines={6}>
          {(rows) =>
            rows.length === 0 ? (
              <p className="panel empty">
                No key is stored. The key of the settings is in no list.
              </p>
            ) : (
              <Table label="API keys" columns={columns} rows={rows} rowKey={(one) => one.id} />
            )
          }
        </Loaded>
      )}
      <Dialog open={making} close={() => setMaking(false)} title="New key">
        {making && <KeyForm />}
      </Dialog>
      <Question
        open={leaving !== null}
        close={() => setLeaving(null)}
        title={`Revoke the key ${leaving?.name ?? ""}?`}
        verb="Revoke"
        danger
        busy={revoking.isPending}
        error={revoking.error}
        act={() => leaving && revoking.mutate(leaving)}
      >
        <p>
          Programs and browsers that use it are refused within two seconds. Its instances go on.
          {leaving?.id === mine && " You are logged in with it, and will be logged out."}
        </p>
      </Question>
    </Page>
  );
}

function limits(of: Schemas["KeyLimits"] | undefined): string {
  if (of === undefined) return "none";
  return [
    of.maxInstances !== undefined && `${of.maxInstances} instances`,
    of.maxHourlyPrice !== undefined && `at most ${perHour(of.maxHourlyPrice)} each`,
    of.maxRunMinutes !== undefined && `runs of ${minutes(of.maxRunMinutes)}`,
    of.budget && `${money(of.budget.amount)} (${of.budget.period})`,
  ]
    .filter(Boolean)
    .join(", ");
}

function KeyForm() {
  const making = useMutation({
    gcTime: 0,
    mutationFn: (body: Schemas["NewKey"]) =>
      answer(client.POST("/api/keys", { params: { header: once() }, body })),
    onSuccess: renew,
  });
  if (making.data) {
    return (
      <div className="stack">
        <p>The key is shown now and never again.</p>
        <Copy text={making.data.key} label="the key" />
      </div>
    );
  }
  const wrong = (name: string) =>
    making.error instanceof ApiError
      ? making.error.fields.find((one) => one.field.endsWith(name))?.message
      : undefined;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        const scope = String(form.get("scope"));
        const number = (name: string) => Number(form.get(name) ?? 0);
        const bounds: Schemas["NewKeyLimits"] = {
          ...(number("instances") > 0 && { maxInstances: number("instances") }),
          ...(number("price") > 0 && { maxHourlyPrice: number("price") }),
          ...(number("run") > 0 && { maxRunMinutes: Math.round(number("run") * 60) }),
        };
        making.mutate({
          name: String(form.get("name")).trim(),
          scopes:
            scope === "admin" ? ["read", "write", "admin"] : scope === "write" ? ["read", "write"] : ["read"],
          ...(Object.keys(bounds).length > 0 && { limits: bounds }),
        });
      }}
    >
      {making.error && <Problem error={making.error} />}
      <div className="fields">
        <TextField label="Name" name="name" required error={wrong("name")} />
        <SelectField label="May" name="scope" defaultValue="write">
          <option value="read">read</option>
          <option value="write">read and change instances</option>
          <option value="admin">everything</option>
        </SelectField>
        <TextField
          label="Instances at most"
          name="instances"
          type="number"
          min="1"
          hint="empty: no limit"
          error={wrong("maxInstances")}
        />
        <TextField
          label="Price at most"
          name="price"
          type="number"
          min="0.01"
          step="any"
          hint="USD per hour for each instance"
          error={wrong("maxHourlyPrice")}
        />
        <TextField
          label="Run at most"
          name="run"
          type="number"
          min="0.1"
          step="any"
          hint="hours for each run"
          error={wrong("maxRunMinutes")}
        />
      </div>
      <p className="small quiet">The limits of a key never change; a key for everything has none.</p>
      <div>
        <Button type="submit" kind="primary" busy={making.isPending}>
          Create
        </Button>
      </div>
    </form>
  );
}
