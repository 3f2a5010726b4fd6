// SPDX-License-Identifier: Apache-2.0
// The same with the functions that @hey-api/openapi-ts generates: create an instance, wait until it
// serves, and delete it.

import { client } from "./generated/hey-api/client.gen.js";
import { createInstance, deleteInstance, waitForInstance } from "./generated/hey-api/index.js";

client.setConfig({
  baseUrl: process.env.NOVITAI_URL ?? "http://127.0.0.1:8080",
  auth: () => process.env.NOVITAI_API_KEY ?? "",
  throwOnError: true,
});

const created = await createInstance({
  body: {
    name: "hey-api",
    productName: "gpu-basic",
    templateId: "tmpl-12345",
  },
  throwOnError: true,
});
const { instanceId } = created.data;
console.log(`created ${instanceId}`);

const waited = await waitForInstance({ path: { instanceId }, throwOnError: true });
console.log(`${waited.data.status} in ${waited.data.region}`);

const deleted = await deleteInstance({ path: { instanceId }, throwOnError: true });
console.log(`deleted: ${deleted.data.status}`);
