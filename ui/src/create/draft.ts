// SPDX-License-Identifier: Apache-2.0
// The draft of an instance. Everything but its variables, which may be secret, lives in the
// address: a reload and a link keep it.
import type { Schemas } from "../api/client";
import { text } from "../instances/filters";

export interface Draft {
  name?: string;
  product?: string;
  template?: string;
  gpus?: string;
  disk?: string;
  region?: string;
  mode?: "spot";
  price?: string;
  /** Hours of a run; `none` for no limit. */
  run?: string;
  spend?: string;
  idle?: string;
  /** `name=value` on each line. */
  tags?: string;
}

const NAMES = ["name", "product", "template", "gpus", "disk", "region", "price", "run", "spend", "idle", "tags"] as const;

/** Hours of a run, unless another limit or none is chosen. */
export const USUAL_RUN = "8";

export function draftSearch(search: Record<string, unknown>): Draft {
  const draft: Draft = {};
  for (const name of NAMES) {
    const value = text(search[name]);
    if (value !== "") draft[name] = value;
  }
  if (search.mode === "spot") draft.mode = "spot";
  return draft;
}

/** Lines of `name=value` as an object; lines without a name are left out. */
export function pairs(lines: string): Record<string, string> {
  return Object.fromEntries(
    lines
      .split("\n")
      .map((line): [string, string] => {
        const at = line.indexOf("=");
        return at === -1 ? [line.trim(), ""] : [line.slice(0, at).trim(), line.slice(at + 1)];
      })
      .filter(([name]) => name !== ""),
  );
}

/** The request of a draft, without its variables; null while something needed is missing. */
export function requestOf(draft: Draft): Schemas["NewQuote"] | null {
  if (!draft.product || !draft.template) return null;
  const run = draft.run ?? USUAL_RUN;
  const limits: Schemas["NewLimits"] = {
    ...(run !== "none" && Number(run) > 0 && { maxRunMinutes: Math.max(1, Math.round(Number(run) * 60)) }),
    ...(Number(draft.spend) > 0 && { maxSpend: Number(draft.spend) }),
  };
  const tags = pairs(draft.tags ?? "");
  return {
    name: draft.name ?? "",
    productName: draft.product,
    templateId: draft.template,
    gpuNum: Number(draft.gpus ?? 1),
    ...(draft.disk && { rootfsSize: Number(draft.disk) }),
    ...(draft.region && { region: draft.region }),
    ...(draft.mode && { billingMode: draft.mode }),
    ...(Number(draft.price) > 0 && { maxHourlyPrice: Number(draft.price) }),
    ...(Object.keys(limits).length > 0 && { limits }),
    ...(Number(draft.idle) > 0 && { autoStop: { idleMinutes: Number(draft.idle) } }),
    ...(Object.keys(tags).length > 0 && { tags }),
  };
}
