// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from "react";

import { Button } from "./Button";
import "./copy.css";

/** Text to take along, such as a command, with a button that copies it. */
export function Copy({ text, label }: { text: string; label: string }) {
  const code = useRef<HTMLElement>(null);
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (said === "") return;
    const timer = setTimeout(() => setSaid(""), 2500);
    return () => clearTimeout(timer);
  }, [said]);
  return (
    <div className="copy">
      <code ref={code} dir="ltr">
        {text}
      </code>
      <Button
        aria-label={`Copy ${label}`}
        onClick={async () => setSaid((await copied(text, code.current)) ? "Copied" : "Selected: press Ctrl-C")}
      >
        {said === "" ? "Copy" : said}
      </Button>
      <span className="hidden" role="status">
        {said}
      </span>
    </div>
  );
}

/** Browsers give pages of plain HTTP no clipboard; then the text is selected. */
async function copied(text: string, place: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    if (place) window.getSelection()?.selectAllChildren(place);
    return false;
  }
}
