// SPDX-License-Identifier: Apache-2.0
// Rent an instance: create it, wait until it serves, list all instances, follow its events, and
// delete it. NOVITAI_URL and NOVITAI_API_KEY say which server to call, and with which key.

import { randomUUID } from "node:crypto";

import { EventSourceParserStream } from "eventsource-parser/stream";
import createClient from "openapi-fetch";

import type { components, paths } from "./generated/novitai.js";

type Instance = components["schemas"]["Instance"];
type NewInstance = components["schemas"]["NewInstance"];
type Event = components["schemas"]["Event"];
type ErrorEnvelope = components["schemas"]["ErrorEnvelope"];

const url = process.env.NOVITAI_URL ?? "http://127.0.0.1:8080";
const authorization = `Bearer ${process.env.NOVITAI_API_KEY}`;
const client = createClient<paths, "application/json">({
  baseUrl: url,
  headers: { Authorization: authorization },
});

/** Returns the data of a response, or throws its error. */
function dataOf<T>(response: { data?: T; error?: ErrorEnvelope }): T {
  if (response.data === undefined) {
    const error = response.error?.error;
    throw new Error(`${error?.code}: ${error?.message} (request ${error?.requestId})`);
  }
  return response.data;
}

/** Creates an instance. A request that is sent again with its key creates no second one. */
async function create(body: NewInstance): Promise<string> {
  const header = { "Idempotency-Key": randomUUID() };
  const created = dataOf(await client.POST("/api/instances", { body, params: { header } }));
  return created.instanceId;
}

/** Waits until an instance serves; throws if it has failed. */
async function ready(instanceId: string): Promise<Instance> {
  for (;;) {
    const response = await client.GET("/api/instances/{instanceId}/wait", {
      params: { path: { instanceId }, query: { status: "running", timeout: 60 } },
    });
    const instance = dataOf(response);
    if (response.response.status === 200) return instance;
    console.log(`still ${instance.status}`);
  }
}

/** Yields all instances, page by page. */
async function* instances(): AsyncGenerator<Instance> {
  let cursor: string | undefined;
  do {
    const query = { limit: 100, ...(cursor === undefined ? {} : { cursor }) };
    const page = dataOf(await client.GET("/api/instances", { params: { query } }));
    yield* page.instances;
    cursor = page.nextCursor;
  } while (cursor !== undefined);
}

/** Returns where the log of events ends now. */
async function cursorOfEvents(): Promise<string> {
  const { response } = await client.GET("/api/instances", { params: { query: { limit: 1 } } });
  return response.headers.get("Event-Cursor") ?? "";
}

/** Yields the events of an instance since a cursor, as they happen, until the reader stops. */
async function* eventsOf(instanceId: string, since: string): AsyncGenerator<Event> {
  const { data, response } = await client.GET("/api/events/stream", {
    params: { query: { instanceId, since } },
    parseAs: "stream",
  });
  if (!data) throw new Error(`the stream was refused with status ${response.status}`);
  const messages = data
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream());
  for await (const message of messages) {
    if (message.event !== "gap") yield JSON.parse(message.data) as Event;
  }
}

const instanceId = await create({
  name: "typescript",
  productName: "gpu-basic",
  templateId: "tmpl-12345",
});
console.log(`created ${instanceId}`);

const instance = await ready(instanceId);
console.log(`${instance.status} in ${instance.region} at $${instance.hourlyPrice} an hour`);

for await (const one of instances()) console.log(`listed ${one.id}: ${one.status}`);

const since = await cursorOfEvents();
dataOf(await client.DELETE("/api/instances/{instanceId}", { params: { path: { instanceId } } }));
for await (const event of eventsOf(instanceId, since)) {
  console.log(`event ${event.type}`);
  if (event.type === "instance.terminated") break;
}
