// SPDX-License-Identifier: Apache-2.0
import { useNavigate } from "@tanstack/react-router";
import { useEffect, useId, useState } from "react";

import { Dialog } from "../design/Dialog";
import { useInstances } from "../instances/queries";
import { PLACES } from "./places";

interface Target {
  id: string;
  title: string;
  about: string;
  go: () => void;
}

const MOST = 30;

export function Palette({ open, close }: { open: boolean; close: () => void }) {
  return (
    <Dialog open={open} close={close} title="Go to">
      {open && <Choice close={close} />}
    </Dialog>
  );
}

function Choice({ close }: { close: () => void }) {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const list = useId();
  const navigate = useNavigate();
  const { rows } = useInstances(false);
  const go = (target: Target | undefined) => {
    if (target === undefined) return;
    close();
    target.go();
  };
  const pages: Target[] = [
    ...PLACES.map((place) => ({
      id: place.to,
      title: place.title,
      about: `g ${place.key}`,
      go: () => void navigate({ to: place.to }),
    })),
    { id: "/new", title: "New instance", about: "n", go: () => void navigate({ to: "/new" }) },
  ];
  const wanted = text.trim().toLowerCase();
  const targets: Target[] = pages.filter((one) => one.title.toLowerCase().includes(wanted));
  for (const one of rows) {
    if (targets.length >= MOST) break;
    if (one.name.toLowerCase().includes(wanted) || one.id.includes(wanted)) {
      targets.push({
        id: one.id,
        title: one.name,
        about: `${one.status}, ${one.region}`,
        go: () => void navigate({ to: "/instances/$instanceId", params: { instanceId: one.id } }),
      });
    }
  }
  const option = (index: number) => `${list}-${index}`;
  useEffect(() => {
    document.getElementById(`${list}-${chosen}`)?.scrollIntoView({ block: "nearest" });
  }, [chosen, list]);
  return (
    <>
      <input
        role="combobox"
        aria-label="Page or instance"
        aria-expanded="true"
        aria-controls={list}
        aria-activedescendant={targets.length > 0 ? option(chosen) : undefined}
        autoFocus
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setChosen(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            event.preventDefault();
            const step = event.key === "ArrowDown" ? 1 : -1;
            setChosen(Math.max(0, Math.min(targets.length - 1, chosen + step)));
          } else if (event.key === "Enter") {
            event.preventDefault();
            go(targets[chosen]);
          }
        }}
      />
      <div id={list} role="listbox" aria-label="Pages and instances" className="palette-list">
        {targets.map((target, index) => (
          <div
            key={target.id}
            id={option(index)}
            role="option"
            aria-selected={index === chosen}
            className="row apart"
            onClick={() => go(target)}
          >
            <span dir="auto">{target.title}</span>
            <span className="quiet small">{target.about}</span>
          </div>
        ))}
      </div>
      {targets.length === 0 && <p className="quiet">Nothing has this name.</p>}
    </>
  );
}
