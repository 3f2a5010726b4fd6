// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answer, client, type Schemas } from "../api/client";
import { queryClient } from "../api/queries";
import { pairs } from "../create/draft";
import { Button } from "../design/Button";
import { Dialog } from "../design/Dialog";
import { TextLines } from "../design/Field";
import { Problem } from "../design/Problem";
import { useRefusal } from "../session/session";
import type { Instance } from "./queries";

export function Tags({ instance }: { instance: Instance }) {
  const [editing, setEditing] = useState(false);
  const write = useRefusal("write");
  const tags = Object.entries(instance.tags);
  return (
    <>
      <p dir="auto">
        {tags.length === 0 ? "none" : tags.map(([name, value]) => `${name}:${value}`).join(", ")}
      </p>
      <Button
        refusal={write ?? (instance.status === "released" ? "It is released" : null)}
        onClick={() => setEditing(true)}
      >
        Change tags
      </Button>
      <Dialog open={editing} close={() => setEditing(false)} title={`Tags of ${instance.name}`}>
        {editing && <TagsForm instance={instance} close={() => setEditing(false)} />}
      </Dialog>
    </>
  );
}

function TagsForm({ instance, close }: { instance: Instance; close: () => void }) {
  const [text, setText] = useState(
    Object.entries(instance.tags)
      .map(([name, value]) => `${name}=${value}`)
      .join("\n"),
  );
  const saving = useMutation({
    mutationFn: (tags: Schemas["InstanceChange"]["tags"]) =>
      answer(
        client.PATCH("/api/instances/{instanceId}", {
          params: { path: { instanceId: instance.id } },
          body: { tags },
        }),
      ),
    onSuccess: (changed) => {
      queryClient.setQueryData(["instance", instance.id], changed);
      close();
    },
  });
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        const removed = Object.keys(instance.tags).map((name) => [name, null]);
        saving.mutate({ ...Object.fromEntries(removed), ...pairs(text) });
      }}
    >
      {saving.error && <Problem error={saving.error} />}
      <TextLines label="Tags, name=value on each line" value={text} change={setText} />
      <div>
        <Button type="submit" kind="primary" busy={saving.isPending}>
          Save
        </Button>
      </div>
    </form>
  );
}
