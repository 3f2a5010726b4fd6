// SPDX-License-Identifier: Apache-2.0
import { useEffect, type ReactNode } from "react";

/** A page with its title, which the tab has too, and what can be done on it. */
export function Page({
  title,
  aside,
  children,
}: {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = `${title} – novitai`;
  }, [title]);
  return (
    <div className="stack">
      <div className="row apart">
        <h1 dir="auto">{title}</h1>
        {aside && <div className="row">{aside}</div>}
      </div>
      {children}
    </div>
  );
}
