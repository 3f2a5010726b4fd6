// SPDX-License-Identifier: Apache-2.0
import { Copy } from "../design/Copy";
import type { Instance } from "./queries";

/** The same outside the browser. */
export function AsRequest({ instance }: { instance: Instance }) {
  return (
    <section className="panel" aria-labelledby="request">
      <h2 id="request">Outside the dashboard</h2>
      <div>
        <h3>As command</h3>
        <Copy text={`novitai get ${instance.id}`} label="the command" />
      </div>
      <div>
        <h3>As curl</h3>
        <Copy
          text={`curl -H "Authorization: Bearer $NOVITAI_API_KEY" ${window.location.origin}/api/instances/${instance.id}`}
          label="the curl line"
        />
      </div>
      <details>
        <summary>As JSON</summary>
        <pre dir="ltr">{JSON.stringify(instance, null, 2)}</pre>
      </details>
    </section>
  );
}
