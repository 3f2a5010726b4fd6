// SPDX-License-Identifier: Apache-2.0
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useEffect, useState } from "react";

import { answer, client, once, type Schemas } from "../api/client";
import { ApiError } from "../api/errors";
import { useCatalogue } from "../catalogue/queries";
import { Button } from "../design/Button";
import { Copy } from "../design/Copy";
import { Check, SelectField, TextField, TextLines } from "../design/Field";
import { perHour } from "../design/format";
import { Loaded } from "../design/Loading";
import { Problem } from "../design/Problem";
import { useRefusal } from "../session/session";
import { Page } from "../shell/Page";
import { pairs, requestOf, USUAL_RUN, type Draft } from "./draft";
import { QuotePanel } from "./QuotePanel";

const route = getRouteApi("/new");
const PAUSE = 350;
const NAME = /^[A-Za-z0-9_-]{1,100}$/;

export function NewPage() {
  const kept = route.useSearch();
  const navigate = route.useNavigate();
  const [draft, setDraft] = useState<Draft>(kept);
  const [envs, setEnvs] = useState("");
  const settled = useSettled(draft);
  const write = useRefusal("write");
  const request = requestOf(settled);
  const quote = useQuote(request);
  const creating = useMutation({
    mutationFn: (body: Schemas["NewInstance"]) =>
      answer(client.POST("/api/instances", { params: { header: once() }, body })),
    onSuccess: ({ instanceId }) =>
      void navigate({ to: "/instances/$instanceId", params: { instanceId } }),
  });
  useEffect(() => {
    // After the creation, the way to the page of the instance must not be overtaken.
    if (!creating.isSuccess && JSON.stringify(settled) !== JSON.stringify(kept)) {
      void navigate({ search: settled, replace: true });
    }
  }, [settled]);
  const change = (more: Partial<Record<keyof Draft, string | undefined>>) =>
    setDraft((old) => {
      const next: Record<string, string> = {};
      for (const [name, value] of Object.entries({ ...old, ...more })) {
        if (value) next[name] = value;
      }
      return next as Draft;
    });
  const wrong = (name: string) =>
    creating.error instanceof ApiError
      ? creating.error.fields.find((one) => one.field === name)?.message
      : undefined;
  const why = !draft.product || !draft.template
    ? "Choose a product and a template"
    : !NAME.test(draft.name ?? "")
      ? "Give it a name of letters, digits, - and _"
      : null;

  return (
    <Page title="New instance">
      {creating.error && <Problem error={creating.error} title="It was not created" />}
      <div className="panels">
        <form
          className="panel"
          aria-label="New instance"
          onSubmit={(event) => {
            event.preventDefault();
            const body = requestOf(draft);
            if (body === null || why !== null || write !== null || creating.isPending) return;
            const variables = pairs(envs);
            creating.mutate({
              ...body,
              ...(Object.keys(variables).length > 0 && { envs: variables }),
              ...(quote.data &&
                !quote.isPlaceholderData &&
                isOf(quote.data, body, request) && { quoteId: quote.data.quoteId }),
            });
          }}
        >
          <Choices draft={draft} change={change} wrong={wrong} />
          <Limits draft={draft} change={change} />
          <details>
            <summary>Tags, variables, disk, price limit</summary>
            <div className="stack">
              <div className="fields">
                <TextField
                  label="Disk"
                  type="number"
                  min="20"
                  max="1000"
                  hint="GB; empty: as the template"
                  value={draft.disk ?? ""}
                  error={wrong("rootfsSize")}
                  onChange={(event) => change({ disk: event.currentTarget.value })}
                />
                <TextField
                  label="Price at most"
                  type="number"
                  min="0"
                  step="any"
                  hint="USD per hour for the whole instance"
                  value={draft.price ?? ""}
                  error={wrong("maxHourlyPrice")}
                  onChange={(event) => change({ price: event.currentTarget.value })}
                />
              </div>
              <TextLines
                label="Tags, name=value on each line"
                value={draft.tags ?? ""}
                change={(tags) => change({ tags })}
              />
              <TextLines
                label="Variables, NAME=value on each line; they are not kept in the address"
                value={envs}
                change={setEnvs}
              />
            </div>
          </details>
          <div>
            <Button
              type="submit"
              kind="primary"
              refusal={write ?? why}
              busy={creating.isPending}
            >
              Create{quote.data?.candidates[0] && ` for ${perHour(quote.data.candidates[0].hourlyPrice)}`}
            </Button>
          </div>
        </form>
        <QuotePanel quote={quote} ready={request !== null} />
      </div>
      {request && <AsRequest request={request} />}
    </Page>
  );
}

interface Part {
  draft: Draft;
  change: (more: Partial<Record<keyof Draft, string | undefined>>) => void;
}

function Choices({ draft, change, wrong }: Part & { wrong: (name: string) => string | undefined }) {
  const { products, templates, regions } = useCatalogue();
  return (
    <>
      <TextField
        label="Name"
        autoFocus
        required
        maxLength={100}
        spellCheck={false}
        autoComplete="off"
        hint="Letters, digits, - and _"
        value={draft.name ?? ""}
        error={wrong("name")}
        onChange={(event) => change({ name: event.currentTarget.value })}
      />
      <Loaded query={products} lines={2}>
        {(list) => (
          <SelectField
            label="Product"
            required
            value={draft.product ?? ""}
            error={wrong("productName")}
            onChange={(event) => change({ product: event.currentTarget.value })}
          >
            <option value="">Choose</option>
            {cheapest(list, draft.mode).map(([name, price]) => (
              <option key={name} value={name}>
                {name}
                {price === undefined ? ", not offered so" : `, from ${perHour(price)} per GPU`}
              </option>
            ))}
          </SelectField>
        )}
      </Loaded>
      <Loaded query={templates} lines={2}>
        {(list) => (
          <SelectField
            label="Template"
            required
            value={draft.template ?? ""}
            error={wrong("templateId")}
            onChange={(event) => change({ template: event.currentTarget.value })}
          >
            <option value="">Choose</option>
            {list.map((one) => (
              <option key={one.id} value={one.id}>
                {one.name} ({one.id})
              </option>
            ))}
          </SelectField>
        )}
      </Loaded>
      <div className="fields">
        <SelectField
          label="GPUs"
          value={draft.gpus ?? "1"}
          error={wrong("gpuNum")}
          onChange={(event) => change({ gpus: event.currentTarget.value })}
        >
          {[1, 2, 3, 4, 5, 6, 7, 8].map((count) => (
            <option key={count}>{count}</option>
          ))}
        </SelectField>
        <SelectField
          label="Region"
          value={draft.region ?? ""}
          error={wrong("region")}
          onChange={(event) => change({ region: event.currentTarget.value })}
        >
          <option value="">The usual order</option>
          <option value="any">The cheapest of all</option>
          {(regions.data ?? []).map((one) => (
            <option key={one.name} value={one.name}>
              {one.name} only
            </option>
          ))}
        </SelectField>
        <SelectField
          label="Billing"
          value={draft.mode ?? ""}
          hint={draft.mode === "spot" ? "Novita may take it back" : undefined}
          onChange={(event) => change({ mode: event.currentTarget.value })}
        >
          <option value="">On demand</option>
          <option value="spot">Spot</option>
        </SelectField>
      </div>
    </>
  );
}

function Limits({ draft, change }: Part) {
  const run = draft.run ?? USUAL_RUN;
  return (
    <fieldset className="stack">
      <legend>
        <h2>Limits</h2>
      </legend>
      <Check
        label="Stop it after a time"
        checked={run !== "none"}
        onChange={(event) => change({ run: event.currentTarget.checked ? undefined : "none" })}
      />
      <div className="fields">
        {run !== "none" && (
          <TextField
            label="Run at most"
            type="number"
            min="0.1"
            step="any"
            hint="hours for each run"
            value={run}
            onChange={(event) => change({ run: event.currentTarget.value })}
          />
        )}
        <TextField
          label="Spend at most"
          type="number"
          min="0.01"
          step="any"
          hint="USD in its whole life"
          value={draft.spend ?? ""}
          onChange={(event) => change({ spend: event.currentTarget.value })}
        />
        <TextField
          label="Stop when idle for"
          type="number"
          min="1"
          hint="minutes"
          value={draft.idle ?? ""}
          onChange={(event) => change({ idle: event.currentTarget.value })}
        />
      </div>
    </fieldset>
  );
}

function AsRequest({ request }: { request: Schemas["NewQuote"] }) {
  const flags = [
    ["--product", request.productName],
    ["--template", request.templateId],
    ["--gpus", String(request.gpuNum)],
    ["--disk", request.rootfsSize?.toString()],
    ["--region", request.region],
    ["--max-price", request.maxHourlyPrice?.toString()],
    ["--max-run", request.limits?.maxRunMinutes && `${request.limits.maxRunMinutes}m`],
    ["--max-spend", request.limits?.maxSpend?.toString()],
    ["--idle", request.autoStop && `${request.autoStop.idleMinutes}m`],
    ...Object.entries(request.tags ?? {}).map(([name, value]) => ["--tag", `${name}=${value}`]),
  ].flatMap(([flag, value]) => (value && flag ? [flag, quoted(value)] : []));
  const spot = request.billingMode === "spot" ? ["--spot"] : [];
  const name = request.name || "NAME";
  const json = JSON.stringify({ ...request, name }, null, 2);
  return (
    <section className="panel" aria-labelledby="request">
      <h2 id="request">Outside the dashboard</h2>
      <Copy text={["novitai create", quoted(name), ...flags, ...spot].join(" ")} label="the command" />
      <details>
        <summary>As curl and JSON</summary>
        <Copy
          text={`curl -X POST ${window.location.origin}/api/instances -H "Authorization: Bearer $NOVITAI_API_KEY" -H "Content-Type: application/json" -d ${quoted(JSON.stringify({ ...request, name }))}`}
          label="the curl line"
        />
        <pre>{json}</pre>
      </details>
    </section>
  );
}

/** A word for a POSIX shell. */
export function quoted(word: string): string {
  return /^[\w./:=@,+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The products by name, each with its lowest price for the billing mode, cheapest first. */
function cheapest(
  products: Schemas["Product"][],
  mode: "spot" | undefined,
): [string, number | undefined][] {
  const prices = new Map<string, number | undefined>();
  for (const one of products) {
    const price = mode === "spot" ? one.spotPrice : one.onDemandPrice;
    const known = prices.get(one.name);
    prices.set(one.name, known === undefined ? price : Math.min(known, price ?? known));
  }
  return [...prices].sort(([, a], [, b]) => (a ?? Infinity) - (b ?? Infinity) || 0);
}

/** The draft once nothing was typed for a moment. */
function useSettled(draft: Draft): Draft {
  const [settled, setSettled] = useState(draft);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(draft), PAUSE);
    return () => clearTimeout(timer);
  }, [draft]);
  return settled;
}

function useQuote(request: Schemas["NewQuote"] | null) {
  // The name has no part in the price.
  const body = request && { ...request, name: "quote" };
  return useQuery({
    queryKey: ["quote", body],
    enabled: body !== null,
    staleTime: 60_000,
    gcTime: 60_000,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) => {
      if (body === null) throw new Error("There is no request");
      return answer(client.POST("/api/quotes", { body, signal }));
    },
  });
}

/** Whether a quote still holds and is of what is sent. */
function isOf(
  quote: Schemas["Quote"],
  body: Schemas["NewQuote"],
  quoted: Schemas["NewQuote"] | null,
): boolean {
  const bare = (one: Schemas["NewQuote"] | null) => JSON.stringify({ ...one, name: "" });
  return Date.parse(quote.expiresAt) > Date.now() + 5000 && bare(body) === bare(quoted);
}
