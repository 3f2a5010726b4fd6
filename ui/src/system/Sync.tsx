// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";

import { answer, client, once } from "../api/client";
import { queryClient } from "../api/queries";
import { Button } from "../design/Button";
import { useRefusal } from "../session/session";

/** Compares the records with the account at Novita before the next periodic listing. */
export function Sync() {
  const refusal = useRefusal("write");
  const syncing = useMutation({
    mutationFn: () =>
      answer(client.POST("/api/instances/sync", { params: { header: once() } })),
    onSuccess: () => void queryClient.invalidateQueries({ queryKey: ["unmanaged"] }),
  });
  return (
    <>
      <Button refusal={refusal} busy={syncing.isPending} onClick={() => syncing.mutate()}>
        {syncing.isSuccess ? "Comparing" : "Compare with Novita now"}
      </Button>
      {syncing.error && (
        <span role="alert" className="field-error small">
          {syncing.error.message}
        </span>
      )}
    </>
  );
}
