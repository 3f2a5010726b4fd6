// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { answer, client, once } from "../api/client";
import { queryClient } from "../api/queries";
import { Button } from "../design/Button";
import { Question } from "../design/Dialog";
import { Problem } from "../design/Problem";
import { useRefusal } from "../session/session";
import { act, consequence, refusal, type Verb } from "./actions";
import type { Instance } from "./queries";

const TITLES: Record<Verb, string> = {
  start: "Start",
  stop: "Stop",
  restart: "Restart",
  release: "Release",
  delete: "Delete",
};
const VERBS: Verb[] = ["start", "stop", "restart", "release", "delete"];

export function Verbs({ instance }: { instance: Instance }) {
  const [asked, setAsked] = useState<Verb | null>(null);
  const write = useRefusal("write");
  const doing = useMutation({
    mutationFn: (verb: Verb) => act(verb, instance.id),
    onSuccess: () => setAsked(null),
  });
  const cancelling = useMutation({
    mutationFn: (operationId: string) =>
      answer(
        client.POST("/api/operations/{operationId}/cancel", {
          params: { path: { operationId }, header: once() },
        }),
      ),
    onSettled: () => void queryClient.invalidateQueries({ queryKey: ["instance", instance.id] }),
  });
  const operation = instance.operation;
  return (
    <div className="row">
      {operation && ["create", "start", "restart"].includes(operation.kind) && (
        <Button
          refusal={write}
          busy={cancelling.isPending}
          onClick={() => cancelling.mutate(operation.id)}
        >
          Cancel the {operation.kind}
        </Button>
      )}
      {VERBS.map((verb) => (
        <Button
          key={verb}
          kind={verb === "delete" ? "danger" : "plain"}
          refusal={write ?? refusal(verb, instance)}
          onClick={() => {
            doing.reset();
            setAsked(verb);
          }}
        >
          {TITLES[verb]}
        </Button>
      ))}
      {cancelling.error && <Problem error={cancelling.error} />}
      <Question
        open={asked !== null}
        close={() => setAsked(null)}
        title={asked ? `${TITLES[asked]} ${instance.name}?` : ""}
        verb={asked ? TITLES[asked] : ""}
        danger={asked === "delete"}
        busy={doing.isPending}
        error={doing.error}
        act={() => asked && doing.mutate(asked)}
      >
        <p>{asked && consequence(asked, [instance])}</p>
      </Question>
    </div>
  );
}
