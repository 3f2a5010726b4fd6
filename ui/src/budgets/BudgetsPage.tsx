// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { queryClient } from "../api/queries";
import { Button } from "../design/Button";
import { Dialog, Question } from "../design/Dialog";
import { SelectField, TextField } from "../design/Field";
import { money } from "../design/format";
import { Loaded } from "../design/Loading";
import { Problem } from "../design/Problem";
import { Moment } from "../design/Time";
import { useRefusal } from "../session/session";
import { Page } from "../shell/Page";
import { BudgetBar } from "./BudgetBar";
import { useBudgets } from "./queries";

type Budget = Schemas["Budget"];

const ACTIONS: Record<Schemas["BudgetAction"], string> = {
  alert: "only tells",
  refuse: "refuses creates and starts",
  stop: "refuses, and stops what runs",
};

function renew(): void {
  void queryClient.invalidateQueries({ queryKey: ["budgets"] });
}

export function BudgetsPage() {
  const query = useBudgets();
  const admin = useRefusal("admin");
  const [editing, setEditing] = useState<Budget | "new" | null>(null);
  const [leaving, setLeaving] = useState<Budget | null>(null);
  const removing = useMutation({
    mutationFn: (one: Budget) =>
      answer(
        client.DELETE("/api/budgets/{budgetId}", {
          params: { path: { budgetId: one.id }, header: once() },
        }),
      ),
    onSuccess: () => {
      setLeaving(null);
      renew();
    },
  });
  return (
    <Page
      title="Budgets"
      aside={
        <Button kind="primary" refusal={admin} onClick={() => setEditing("new")}>
          New budget
        </Button>
      }
    >
      <Loaded query={query} lines={6}>
        {({ rows }) =>
          rows.length === 0 ? (
            <p className="panel empty">
              There is no budget. One can tell you, refuse creates, or stop what runs.
            </p>
          ) : (
            <ul className="plain stack">
              {rows.map((one) => (
                <li key={one.id} className="panel">
                  <BudgetBar budget={one} />
                  <p className="small" dir="auto">
                    Of {about(one)}; at its end it {ACTIONS[one.onLimit]}. {money(one.remaining)} left
                    {one.periodEnd && (
                      <>
                        {" "}
                        until <Moment at={one.periodEnd} />
                      </>
                    )}{" "}
                    ({one.tz}).
                  </p>
                  <div className="row">
                    <Button refusal={admin ?? ofKey(one)} onClick={() => setEditing(one)}>
                      Change
                    </Button>
                    <Button
                      kind="danger"
                      refusal={admin ?? ofKey(one)}
                      onClick={() => {
                        removing.reset();
                        setLeaving(one);
                      }}
                    >
                      Delete
                    </Button>
                  </div>
                </li>
              ))}
            </ul>
          )
        }
      </Loaded>
      <Dialog
        open={editing !== null}
        close={() => setEditing(null)}
        title={editing === "new" ? "New budget" : `Budget ${editing?.name ?? ""}`}
      >
        {editing !== null && (
          <BudgetForm budget={editing === "new" ? null : editing} close={() => setEditing(null)} />
        )}
      </Dialog>
      <Question
        open={leaving !== null}
        close={() => setLeaving(null)}
        title={`Delete the budget ${leaving?.name ?? ""}?`}
        verb="Delete"
        danger
        busy={removing.isPending}
        error={removing.error}
        act={() => leaving && removing.mutate(leaving)}
      >
        <p>It no longer refuses or stops anything. Instances that it stopped stay stopped.</p>
      </Question>
    </Page>
  );
}

function ofKey(one: Budget): string | null {
  return one.keyLimit ? "It is a limit of its key, which never changes" : null;
}

function about({ scope }: Budget): string {
  if (scope.tag) return `instances with the tag ${scope.tag.name}:${scope.tag.value}`;
  return scope.keyId ? `instances that the key ${scope.keyId} created` : "all instances";
}

function BudgetForm({ budget, close }: { budget: Budget | null; close: () => void }) {
  const saving = useMutation({
    mutationFn: (body: Schemas["NewBudget"]) =>
      budget === null
        ? answer(client.POST("/api/budgets", { params: { header: once() }, body }))
        : answer(
            client.PATCH("/api/budgets/{budgetId}", {
              params: { path: { budgetId: budget.id } },
              body,
            }),
          ),
    onSuccess: () => {
      renew();
      close();
    },
  });
  const wrong = (name: string) =>
    saving.error instanceof ApiError
      ? saving.error.fields.find((one) => one.field.endsWith(name))?.message
      : undefined;
  const tag = budget?.scope.tag;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const form = new FormData(event.currentTarget);
        const value = (name: string) => String(form.get(name) ?? "").trim();
        const [name = "", ...rest] = value("tag").split(":");
        const kept = budget?.scope.keyId;
        saving.mutate({
          name: value("name"),
          amount: Number(value("amount")),
          period: value("period") as Schemas["BudgetPeriod"],
          onLimit: value("action") as Schemas["BudgetAction"],
          scope: name
            ? { tag: { name, value: rest.join(":") } }
            : kept === undefined
              ? {}
              : { keyId: kept },
          ...(budget === null && { tz: Intl.DateTimeFormat().resolvedOptions().timeZone }),
        });
      }}
    >
      {saving.error && <Problem error={saving.error} />}
      <div className="fields">
        <TextField
          label="Name"
          name="name"
          required
          defaultValue={budget?.name}
          error={wrong("name")}
        />
        <TextField
          label="Amount"
          name="amount"
          type="number"
          min="0.01"
          step="any"
          required
          hint="USD in each period"
          defaultValue={budget?.amount}
          error={wrong("amount")}
        />
        <SelectField label="Period" name="period" defaultValue={budget?.period ?? "month"}>
          <option value="day">Day</option>
          <option value="week">Week</option>
          <option value="month">Month</option>
          <option value="total">In all</option>
        </SelectField>
        <SelectField label="When it is spent" name="action" defaultValue={budget?.onLimit ?? "alert"}>
          <option value="alert">Only tell</option>
          <option value="refuse">Refuse creates and starts</option>
          <option value="stop">Refuse, and stop what runs</option>
        </SelectField>
        <TextField
          label="Tag"
          name="tag"
          hint={budget?.scope.keyId ? "name:value; empty: of its key" : "name:value; empty: all instances"}
          defaultValue={tag && `${tag.name}:${tag.value}`}
          error={wrong("scope")}
        />
      </div>
      <div>
        <Button type="submit" kind="primary" busy={saving.isPending}>
          Save
        </Button>
      </div>
    </form>
  );
}
