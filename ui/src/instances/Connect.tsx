// SPDX-License-Identifier: Apache-2.0
import { useMutation } from "@tanstack/react-query";
import { useEffect } from "react";

import { answer, client } from "../api/client";
import { Button } from "../design/Button";
import { Copy } from "../design/Copy";
import { Problem } from "../design/Problem";
import { useRefusal } from "../session/session";
import type { Instance } from "./queries";

/** The ssh line of an address, if every part of it is harmless in a shell. */
export function sshLine(address: string): string | null {
  const found = /^ssh:\/\/(?:(\w[\w.-]*)@)?(\w[\w.-]*|\[[0-9a-fA-F:]+\])(?::(\d{1,5}))?$/.exec(address);
  if (!found) return null;
  const [, user, host = "", port] = found;
  const name = host.replace(/[[\]]/g, "");
  return ["ssh", ...(port ? ["-p", port] : []), user ? `${user}@${name}` : name].join(" ");
}

export function Connect({ instance }: { instance: Instance }) {
  const details = instance.connectionDetails;
  const line = details?.ssh === undefined ? null : sshLine(details.ssh);
  const running = instance.status === "running";
  return (
    <section className="panel" aria-labelledby="connect">
      <h2 id="connect">Connect</h2>
      {!running ? (
        <p className="quiet">
          It is {instance.status}; addresses are shown while it runs, and change at each start.
        </p>
      ) : (
        <>
          {line ? (
            <Copy text={line} label="the ssh line" />
          ) : (
            <p className="quiet">{details?.ssh ?? "Novita tells no SSH address."}</p>
          )}
          <ul className="plain lines">
            <Address name="Jupyter" url={details?.jupyter} />
            <Address name="Web terminal" url={details?.webTerminal} />
            {instance.portMappings.map((one) => (
              <Address
                key={one.port}
                name={`Port ${one.port} (${one.type})`}
                url={one.endpoint}
              />
            ))}
          </ul>
          <Passwords id={instance.id} />
        </>
      )}
    </section>
  );
}

function Address({ name, url }: { name: string; url: string | undefined }) {
  if (url === undefined) return null;
  const web = /^https?:\/\//.test(url);
  return (
    <li>
      <span className="quiet">{name}: </span>
      {web ? (
        <a href={url} target="_blank" rel="noopener noreferrer">
          {url}
        </a>
      ) : (
        <code>{url}</code>
      )}
    </li>
  );
}

function Passwords({ id }: { id: string }) {
  const write = useRefusal("write");
  // A mutation, so that the passwords are in no cache and go with the panel.
  const shown = useMutation({
    gcTime: 0,
    mutationFn: () =>
      answer(
        client.GET("/api/instances/{instanceId}/credentials", {
          params: { path: { instanceId: id } },
        }),
      ),
  });
  const { data, reset } = shown;
  useEffect(() => {
    if (data === undefined) return;
    const timer = setTimeout(reset, 60_000);
    return () => clearTimeout(timer);
  }, [data, reset]);
  const lines: [string, string | undefined][] = data
    ? [
        ["SSH password", data.sshPassword],
        ["User of the web terminal", data.webTerminalUsername],
        ["Password of the web terminal", data.webTerminalPassword],
        ["Jupyter with its token", data.jupyter],
        ["Web terminal with its token", data.webTerminal],
        ...(data.endpoints ?? []).map(
          (one): [string, string] => [`Port ${one.port} with its token`, one.endpoint],
        ),
      ]
    : [];
  return (
    <div className="stack">
      {shown.error && <Problem error={shown.error} />}
      {data ? (
        <>
          {lines.map(
            ([name, value]) =>
              value !== undefined && (
                <div key={name}>
                  <span className="quiet small">{name}</span>
                  <Copy text={value} label={name} />
                </div>
              ),
          )}
          <div className="row">
            <Button onClick={reset}>Hide</Button>
            <span className="quiet small">Hidden again after a minute.</span>
          </div>
        </>
      ) : (
        <div>
          <Button refusal={write} busy={shown.isPending} onClick={() => shown.mutate()}>
            Show passwords
          </Button>
        </div>
      )}
    </div>
  );
}
