// SPDX-License-Identifier: Apache-2.0
// Writes the closed sets that the dashboard needs while it runs into generated/values.ts.
import { readFileSync, writeFileSync } from "node:fs";

const document = JSON.parse(readFileSync("generated/openapi.json", "utf8"));
const names = { eventTypeValues: "EventType", statusValues: "InstanceStatus", webhookEventValues: "WebhookEventType" };
const lines = Object.entries(names).map(
  ([name, schema]) =>
    `export const ${name} = ${JSON.stringify(document.components.schemas[schema].enum)} as const;\n`,
);
writeFileSync("generated/values.ts", lines.join(""));
