// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { queryClient } from "../api/queries";
import { Button } from "../design/Button";
import { Dialog } from "../design/Dialog";
import { SelectField, TextField } from "../design/Field";
import { minutes, money } from "../design/format";
import { Problem } from "../design/Problem";
import { Distance, Moment } from "../design/Time";
import { useRefusal } from "../session/session";
import type { Instance } from "./queries";

const REASONS: Record<Schemas["StopReason"], string> = {
  maxSpend: "its spending limit",
  maxRunMinutes: "its run limit",
  stopAt: "its stop time",
  budget: "a budget",
  autoStop: "auto-stop",
  deleteAfterStopped: "its deletion after a stop",
  keyLimit: "the run limit of its key",
};

function settle(instance: Instance): void {
  queryClient.setQueryData(["instance", instance.id], instance);
}

export function LimitsPanel({ instance }: { instance: Instance }) {
  const [editing, setEditing] = useState(false);
  const write = useRefusal("write");
  const keeping = useMutation({
    mutationFn: (count: number) =>
      answer(
        client.POST("/api/instances/{instanceId}/keep", {
          params: { path: { instanceId: instance.id }, header: once() },
          body: { minutes: count },
        }),
      ),
    onSuccess: settle,
  });
  const protecting = useMutation({
    mutationFn: (on: boolean) =>
      change(instance.id, { protected: on ? { reason: "Set in the dashboard" } : null }),
    onSuccess: settle,
  });
  const { limits, autoStop } = instance;
  const ended = instance.status === "terminated" || instance.status === "released";
  const gone = ended ? `It is ${instance.status}` : null;
  const keepable =
    instance.status !== "running"
      ? "Only the stop of a running instance can be put off"
      : instance.stopsAt === undefined
        ? "No limit stops it"
        : null;
  const error = keeping.error ?? protecting.error;
  return (
    <section className="panel" aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      {error && <Problem error={error} />}
      <dl className="facts">
        <dt>Stops</dt>
        <dd>
          {instance.stopsAt ? (
            <>
              <Moment at={instance.stopsAt} />, <Distance at={instance.stopsAt} />
              {instance.stopReason && <> by {REASONS[instance.stopReason]}</>}
            </>
          ) : instance.stopReason ? (
            `It was stopped by ${REASONS[instance.stopReason]}`
          ) : (
            "no limit"
          )}
        </dd>
        <dt>Run at most</dt>
        <dd>{limits?.maxRunMinutes ? minutes(limits.maxRunMinutes) : "no limit"}</dd>
        <dt>Spend at most</dt>
        <dd>{limits?.maxSpend ? `${money(limits.maxSpend)} in its life` : "no limit"}</dd>
        <dt>Then</dt>
        <dd>{limits?.onLimit === "delete" ? "delete it" : "stop it"}</dd>
        <dt>When idle</dt>
        <dd>
          {autoStop
            ? `${autoStop.action} after ${minutes(autoStop.idleMinutes)} (${autoStop.state})`
            : "nothing"}
        </dd>
        <dt>Protected</dt>
        <dd dir="auto">{instance.protected?.reason ?? "no"}</dd>
      </dl>
      <div className="row">
        <span className="small">Keep for</span>
        {[60, 240, 720].map((count) => (
          <Button
            key={count}
            refusal={write ?? keepable}
            busy={keeping.isPending}
            onClick={() => keeping.mutate(count)}
          >
            {count / 60} h more
          </Button>
        ))}
      </div>
      <div className="row">
        <Button refusal={write ?? gone} onClick={() => setEditing(true)}>
          Change limits
        </Button>
        <Button
          refusal={write ?? gone}
          busy={protecting.isPending}
          onClick={() => protecting.mutate(instance.protected === undefined)}
        >
          {instance.protected ? "Remove protection" : "Protect from deletion"}
        </Button>
        <span className="hidden" role="status">
          {keeping.isSuccess ? "The stop was put off" : ""}
        </span>
      </div>
      <Dialog open={editing} close={() => setEditing(false)} title={`Limits of ${instance.name}`}>
        {editing && <LimitsForm instance={instance} close={() => setEditing(false)} />}
      </Dialog>
    </section>
  );
}

function change(instanceId: string, body: Schemas["InstanceChange"]): Promise<Instance> {
  return answer(
    client.PATCH("/api/instances/{instanceId}", { params: { path: { instanceId } }, body }),
  );
}

function LimitsForm({ instance, close }: { instance: Instance; close: () => void }) {
  const saving = useMutation({
    mutationFn: (body: Schemas["InstanceChange"]) => change(instance.id, body),
    onSuccess: (changed) => {
      settle(changed);
      close();
    },
  });
  const wrong = (name: string) =>
    saving.error instanceof ApiError
      ? saving.error.fields.find((one) => one.field.endsWith(name))?.message
      : undefined;
  const { limits, autoStop } = instance;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        const number = (name: string) => {
          const value = String(form.get(name) ?? "").trim();
          return value === "" ? null : Number(value);
        };
        const run = number("run");
        const idle = number("idle");
        saving.mutate({
          limits: {
            maxRunMinutes: run === null ? null : Math.round(run * 60),
            maxSpend: number("spend"),
            deleteAfterStoppedMinutes: number("after"),
            onLimit: form.get("action") === "delete" ? "delete" : "stop",
          },
          autoStop: idle === null ? null : { idleMinutes: idle },
        });
      }}
    >
      {saving.error && <Problem error={saving.error} />}
      <p className="quiet small">An empty field is no limit.</p>
      <div className="fields">
        <TextField
          label="Run at most"
          name="run"
          type="number"
          min="0"
          step="any"
          hint="hours for each run"
          error={wrong("maxRunMinutes")}
          defaultValue={limits?.maxRunMinutes === undefined ? "" : limits.maxRunMinutes / 60}
        />
        <TextField
          label="Spend at most"
          name="spend"
          type="number"
          min="0"
          step="any"
          hint="USD in its whole life"
          error={wrong("maxSpend")}
          defaultValue={limits?.maxSpend ?? ""}
        />
        <TextField
          label="When idle for"
          name="idle"
          type="number"
          min="1"
          hint="minutes, then stop"
          error={wrong("idleMinutes")}
          defaultValue={autoStop?.idleMinutes ?? ""}
        />
        <TextField
          label="Delete after a stop of"
          name="after"
          type="number"
          min="1"
          hint="minutes"
          error={wrong("deleteAfterStoppedMinutes")}
          defaultValue={limits?.deleteAfterStoppedMinutes ?? ""}
        />
        <SelectField label="At a limit" name="action" defaultValue={limits?.onLimit ?? "stop"}>
          <option value="stop">Stop it</option>
          <option value="delete">Delete it with its disk</option>
        </SelectField>
      </div>
      <div className="row">
        <Button type="submit" kind="primary" busy={saving.isPending}>
          Save
        </Button>
      </div>
    </form>
  );
}
