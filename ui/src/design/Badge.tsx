// SPDX-License-Identifier: Apache-2.0
import type { ReactNode } from "react";

import type { Schemas } from "../api/client";
import "./badge.css";

export type Tone = "good" | "busy" | "warn" | "bad" | "idle";

const TONES: Record<Schemas["InstanceStatus"], Tone> = {
  creating: "busy",
  starting: "busy",
  running: "good",
  stopping: "busy",
  stopped: "idle",
  migrating: "warn",
  failed: "bad",
  terminating: "busy",
  terminated: "idle",
  released: "idle",
};

export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}

/** A status of novitai, with Novita's own word if it is another one. */
export function Status({ status, word }: { status: Schemas["InstanceStatus"]; word?: string | undefined }) {
  return (
    <span>
      <Badge tone={TONES[status] ?? "idle"}>{status}</Badge>
      {word !== undefined && word !== status && (
        <span className="quiet small clip" title={word} dir="auto">
          Novita: {word}
        </span>
      )}
    </span>
  );
}
