// SPDX-License-Identifier: Apache-2.0
import { Dialog } from "../design/Dialog";
import { PLACES } from "./places";

const KEYS: [string, string][] = [
  ["Ctrl K", "go to a page or an instance"],
  ["/", "filter the list"],
  ["j, k", "next and previous row"],
  ["Enter", "open the row"],
  ["x", "select the row"],
  ["n", "new instance"],
  ["?", "this list"],
];

export function Help({ open, close }: { open: boolean; close: () => void }) {
  return (
    <Dialog open={open} close={close} title="Keys">
      <dl className="facts">
        {KEYS.map(([key, does]) => (
          <Line key={key} name={key} does={does} />
        ))}
        {PLACES.map((place) => (
          <Line key={place.to} name={`g ${place.key}`} does={place.title} />
        ))}
      </dl>
    </Dialog>
  );
}

function Line({ name, does }: { name: string; does: string }) {
  return (
    <>
      <dt>
        <kbd>{name}</kbd>
      </dt>
      <dd>{does}</dd>
    </>
  );
}
