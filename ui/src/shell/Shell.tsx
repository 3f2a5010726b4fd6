// SPDX-License-Identifier: Apache-2.0
import { Link, Outlet, useNavigate, useRouter, useRouterState } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { useMutation } from "@tanstack/react-query";

import { Button } from "../design/Button";
import { Notice } from "../design/Problem";
import { SelectField } from "../design/Field";
import { atClock } from "../design/format";
import { useInstances } from "../instances/queries";
import { useConnection } from "../live/live";
import { logOut, type Session } from "../session/session";
import { Help } from "./Help";
import { awaitFilter, isTyping, keepForFilter, takeFilter } from "./keys";
import { Palette } from "./Palette";
import { PLACES } from "./places";
import { keepTheme, theme, type Theme } from "./theme";
import "./shell.css";

const SEQUENCE = 1200;

export function Shell({ session }: { session: Session }) {
  const [dialog, setDialog] = useState<"palette" | "help" | null>(null);
  const [menu, setMenu] = useState(false);
  const path = useRouterState({ select: (state) => state.location.pathname });
  // The list is the base of the stream, and has the names for the palette.
  useInstances(false);
  useEffect(() => {
    setMenu(false);
    // The link that was followed may be gone; the next Tab begins in the page.
    if (document.activeElement === document.body) {
      document.getElementById("main")?.focus({ preventScroll: true });
    }
  }, [path]);
  useShortcuts(dialog === null, setDialog);
  const leaving = useMutation({ mutationFn: logOut });
  return (
    <>
      <a className="skip" href="#main">
        Skip to the page
      </a>
      <header className="top">
        <Link to="/" className="brand">
          novitai
        </Link>
        <span className="menu-button">
          <Button aria-expanded={menu} aria-controls="places" onClick={() => setMenu(!menu)}>
            Menu
          </Button>
        </span>
        <nav id="places" aria-label="Pages" className={menu ? "places open" : "places"}>
          <ul className="plain">
            {PLACES.map((place) => (
              <li key={place.to}>
                <Link to={place.to} activeOptions={{ exact: place.to === "/", includeSearch: false }}>
                  {place.title}
                </Link>
              </li>
            ))}
          </ul>
          <div className="row account">
            <span className="small" dir="auto">
              {session.name}{" "}
              <span className="quiet">
                ({session.scopes.includes("admin") ? "admin" : session.scopes.includes("write") ? "write" : "read only"})
              </span>
            </span>
            <ThemeField />
            <Button busy={leaving.isPending} onClick={() => leaving.mutate()}>
              Log out
            </Button>
          </div>
        </nav>
        <span className="top-end">
          <LiveState />
          <Button onClick={() => setDialog("palette")} aria-keyshortcuts="Control+K">
            Go to <kbd>Ctrl K</kbd>
          </Button>
          <Link to="/new" className="button primary" aria-keyshortcuts="n">
            New
          </Link>
        </span>
      </header>
      <main id="main" tabIndex={-1}>
        {leaving.error && <Notice kind="bad" title={leaving.error.message} />}
        <Outlet />
      </main>
      <Palette open={dialog === "palette"} close={() => setDialog(null)} />
      <Help open={dialog === "help"} close={() => setDialog(null)} />
    </>
  );
}

function ThemeField() {
  const [chosen, setChosen] = useState<Theme>(theme);
  return (
    <SelectField
      label="Colours"
      value={chosen}
      onChange={(event) => {
        const next = event.currentTarget.value as Theme;
        setChosen(next);
        keepTheme(next);
      }}
    >
      <option value="system">As the system</option>
      <option value="light">Light</option>
      <option value="dark">Dark</option>
    </SelectField>
  );
}

function LiveState() {
  const { phase, asOf } = useConnection();
  const text =
    phase === "live"
      ? "Live"
      : phase === "lost"
        ? `As of ${atClock(asOf)}, reconnecting`
        : "Connecting";
  return (
    <span className={`live is-${phase}`} role="status">
      {text}
    </span>
  );
}

function focusFilter(): void {
  document.querySelector<HTMLElement>("[data-filter]")?.focus();
}

/** The keys of all pages. They are not heard (`on` is false) while a dialog is open or opens. */
function useShortcuts(on: boolean, open: (dialog: "palette" | "help") => void): void {
  const navigate = useNavigate();
  const router = useRouter();
  const arrived = useRouterState({ select: (state) => state.resolvedLocation?.pathname });
  // A text filter takes what was typed for it by itself; other filters get the focus.
  useEffect(() => {
    if (takeFilter() !== null) focusFilter();
  }, [arrived]);
  const going = useRef(0);
  useEffect(() => {
    const isOnTheWay = () =>
      router.state.location.pathname !== router.state.resolvedLocation?.pathname;
    const press = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        open("palette");
        return;
      }
      if (!on || event.ctrlKey || event.metaKey || event.altKey) return;
      if (isTyping(event)) {
        if (event.key === "Escape" && event.target instanceof HTMLElement && event.target.matches("[data-filter]")) {
          event.target.blur();
        }
        return;
      }
      if (isOnTheWay() && keepForFilter(event)) {
        event.preventDefault();
        event.stopImmediatePropagation();
        return;
      }
      const place = PLACES.find((one) => one.key === event.key);
      if (event.timeStamp - going.current < SEQUENCE && place !== undefined) {
        going.current = 0;
        event.preventDefault();
        event.stopImmediatePropagation();
        void navigate({ to: place.to });
        return;
      }
      going.current = event.key === "g" ? event.timeStamp : 0;
      if (event.key === "/") {
        event.preventDefault();
        if (isOnTheWay()) awaitFilter();
        else focusFilter();
      } else if (event.key === "n") {
        event.preventDefault();
        void navigate({ to: "/new" });
      } else if (event.key === "?") {
        event.preventDefault();
        open("help");
      }
    };
    document.addEventListener("keydown", press, { capture: true });
    return () => document.removeEventListener("keydown", press, { capture: true });
  }, [on, navigate, open, router]);
}
